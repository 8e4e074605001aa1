"""A tokenizer.json of Hugging Face's form, from what a GGUF file says of its vocabulary.

Byte-level BPE by its merges; SentencePiece as BPE too, its merges being every pair of pieces that makes a piece, in
the order of their scores. How a text is cut beforehand a GGUF only names: the cuts are those of llama.cpp
(llama-vocab.cpp).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from meltbench.errors import MeltbenchError, MissingExtra, ModelDamaged, UserError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

_CONTROL, _USER = 3, 4  # of tokenizer.ggml.token_type
_LLAMA_3 = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+"
    r"|\s+(?!\S)|\s+"
)
_CUTS = ("smollm", "llama-bpe", "gpt-2")
_BOS_BY_ITSELF = ("llama-bpe",)
_SPACE = "\u2581"
_HINT = "give the model's own with --tokenizer tokenizer.json"


def tokenizer_json(says: Callable[..., Any], where: str) -> str:
    """The tokenizer that a GGUF's header describes, as the text of a tokenizer.json.

    ``says`` gives a value of the header by its key. UserError where no such file can be made of it, MissingExtra
    without the package tokenizers.
    """
    try:
        import tokenizers  # noqa: F401  looked for before anything is read
    except ImportError:
        raise MissingExtra("the package tokenizers", "mlc") from None
    kind, words = says("tokenizer.ggml.model"), says("tokenizer.ggml.tokens")
    if not isinstance(words, list) or not all(isinstance(word, str) for word in words):
        raise ModelDamaged(f"{where} has no vocabulary", hint=_HINT)
    makers = {"gpt2": _byte_level, "llama": _sentencepiece}
    if kind not in makers:
        raise UserError(f"{where} has a tokenizer of kind {str(kind)[:40]}; known are gpt2 and llama", hint=_HINT)
    try:
        made = makers[kind](says, words, where)
        _special(made, words, says("tokenizer.ggml.token_type", []))
        _begin(made, says, words, default=kind == "llama" or says("tokenizer.ggml.pre") in _BOS_BY_ITSELF)
        return str(made.to_str())
    except MeltbenchError:
        raise
    except Exception as error:  # noqa: BLE001  the package raises nothing narrower
        raise ModelDamaged(f"{where} has a vocabulary that cannot be read: {str(error)[:200]}", hint=_HINT) from None


def _byte_level(says: Callable[..., Any], words: Sequence[str], where: str) -> Any:
    from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers

    cut, merges = says("tokenizer.ggml.pre"), says("tokenizer.ggml.merges")
    if cut not in _CUTS:
        known = ", ".join(_CUTS)
        raise UserError(f"{where} cuts its texts as {str(cut)[:40]}; known are {known}", hint=_HINT)
    pairs = [tuple(pair.split(" ")) for pair in merges] if isinstance(merges, list) else []
    if not pairs or any(len(pair) != 2 for pair in pairs):
        raise ModelDamaged(f"{where} has no merges for its vocabulary", hint=_HINT)
    whole_words = cut == "llama-bpe"
    made = Tokenizer(models.BPE(dict(zip(words, range(len(words)))), pairs, ignore_merges=whole_words))  # noqa: B905
    if whole_words:
        split = pre_tokenizers.Split(Regex(_LLAMA_3), "isolated")
        steps = [split, pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)]
    else:
        digits = [pre_tokenizers.Digits(individual_digits=True)] if cut == "smollm" else []
        steps = [*digits, pre_tokenizers.ByteLevel(add_prefix_space=False)]
    made.pre_tokenizer = pre_tokenizers.Sequence(steps)
    made.decoder = decoders.ByteLevel()
    return made


def _sentencepiece(says: Callable[..., Any], words: Sequence[str], where: str) -> Any:
    from tokenizers import Tokenizer, decoders, models, normalizers

    scores = says("tokenizer.ggml.scores")
    if not isinstance(scores, list) or len(scores) != len(words):
        raise ModelDamaged(f"{where} has no score for every token", hint=_HINT)
    ids = {word: number for number, word in enumerate(words)}
    pairs = []
    for word in words:
        for at in range(1, len(word)):
            left, right = word[:at], word[at:]
            if left in ids and right in ids:
                pairs.append((-scores[ids[word]], ids[left], ids[right], left, right))
    merges = [(left, right) for *_, left, right in sorted(pairs)]
    unknown = says("tokenizer.ggml.unknown_token_id", 0)
    made = Tokenizer(models.BPE(ids, merges, unk_token=words[unknown], fuse_unk=True, byte_fallback=True))
    first = [normalizers.Prepend(_SPACE)] if says("tokenizer.ggml.add_space_prefix", True) else []
    made.normalizer = normalizers.Sequence([*first, normalizers.Replace(" ", _SPACE)])
    strip = [decoders.Strip(" ", 1, 0)] if first else []
    made.decoder = decoders.Sequence([decoders.Replace(_SPACE, " "), decoders.ByteFallback(), decoders.Fuse(), *strip])
    return made


def _special(made: Any, words: Sequence[str], kinds: object) -> None:
    from tokenizers import AddedToken

    kinds = kinds if isinstance(kinds, list) else []
    for kind, special in ((_CONTROL, True), (_USER, False)):
        named = [
            AddedToken(word, special=special, normalized=False)
            for word, one in zip(words, kinds, strict=False)
            if one == kind and word
        ]
        (made.add_special_tokens if special else made.add_tokens)(named)


def _begin(made: Any, says: Callable[..., Any], words: Sequence[str], *, default: bool) -> None:
    """A text begins with the token that the model was trained to see first, where it was."""
    from tokenizers import processors

    number = says("tokenizer.ggml.bos_token_id")
    if not says("tokenizer.ggml.add_bos_token", default) or not isinstance(number, int) or not 0 <= number < len(words):
        return
    word = words[number]
    made.post_processor = processors.TemplateProcessing(
        single=f"{word} $A", pair=f"{word} $A {word} $B", special_tokens=[(word, number)]
    )
