"""Makes tests/models/tiny-onnx: a language model of random weights in ONNX Runtime GenAI's format, so small that it is
committed. The real runtime runs it without torch.

    pip install '.[build-onnx]' && python tests/models/tiny_onnx.py tests/models/tiny-onnx

Two layers of a Llama, a byte-level tokenizer with a few merges, a chat template. The same bytes each time, with the
same versions of the packages.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

WORDS = ["Ġt", "he", "Ġthe", "in", "an", "er", "on", "Ġa", "is", "re", "at", "ou", "Ġs", "Ġw", "ed", "ing"]
SPECIAL = ["<|end|>", "<|user|>", "<|assistant|>", "<|system|>"]
TEMPLATE = (
    "{% for one in messages %}<|{{ one['role'] }}|>{{ one['content'] }}<|end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>{% endif %}"
)
CONTEXT = 1024


def write_tokenizer(folder: Path) -> int:
    """Write the tokenizer in Hugging Face's files; how many tokens it has."""
    from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    merges, known = [], set(letters)
    for word in WORDS:
        cut = next(n for n in range(len(word) - 1, 0, -1) if word[:n] in known and word[n:] in known)
        merges.append((word[:cut], word[cut:]))
        known.add(word)
    vocab = {token: number for number, token in enumerate([*SPECIAL, *letters, *WORDS])}
    made = Tokenizer(models.BPE(vocab=vocab, merges=merges))
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    made.decoder = decoders.ByteLevel()
    made.add_special_tokens([AddedToken(one, special=True) for one in SPECIAL])
    fast = PreTrainedTokenizerFast(tokenizer_object=made, eos_token=SPECIAL[0], pad_token=SPECIAL[0])
    fast.chat_template = TEMPLATE
    fast.save_pretrained(folder)
    return len(vocab)


def write_weights(folder: Path, vocab_size: int) -> None:
    """Write a Llama of random weights in Hugging Face's files."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=vocab_size,
        hidden_size=16,
        intermediate_size=32,
        num_hidden_layers=2,
        num_attention_heads=1,
        num_key_value_heads=1,
        head_dim=16,
        max_position_embeddings=CONTEXT,
        tie_word_embeddings=True,
        initializer_range=0.5,
        bos_token_id=0,
        eos_token_id=0,
        pad_token_id=0,
    )
    LlamaForCausalLM(config).float().save_pretrained(folder)


def main() -> None:
    out = Path(sys.argv[1])
    with tempfile.TemporaryDirectory() as name:
        source, made = Path(name) / "source", Path(name) / "made"
        write_weights(source, write_tokenizer(source))
        words = [sys.executable, "-m", "onnxruntime_genai.models.builder", "-i", str(source), "-o", str(made)]
        subprocess.run([*words, "-p", "fp32", "-e", "cpu", "-c", str(Path(name) / "cache")], check=True)
        # The name that transformers 4 had for it, which older runtimes know too.
        said = made / "tokenizer_config.json"
        said.write_text(said.read_text().replace("TokenizersBackend", "PreTrainedTokenizerFast"))
        shutil.rmtree(out, ignore_errors=True)
        shutil.copytree(made, out)


if __name__ == "__main__":
    main()
