"""The steps of a build that need torch, each a process of its own: python -m meltbench.models.onnx.convert STEP ...

    weights GGUF FOLDER       a GGUF file as Hugging Face's files, its weights dequantised to fp32
    tokens SOURCE FOLDER      how many texts the built model's tokenizer splits otherwise than its source's

No code of a model's repository is run, and nothing is fetched.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

# How llama.cpp cuts a text before its tokenizer joins bytes, by the GGUF's tokenizer.ggml.pre (llama-vocab.cpp of
# llama-cpp-python 0.3.36): one pattern after the other cuts what those before left.
_GPT2 = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"
_WORD = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}%s| ?[^\s\p{L}\p{N}]+[\r\n]*"
    r"|\s*[\r\n]+|\s+(?!\S)|\s+"
)
_LLAMA3, _QWEN2 = (_WORD % "{1,3}",), (_WORD % "",)
PATTERNS: dict[str, tuple[str, ...]] = {
    **dict.fromkeys(("gpt-2", "phi-2", "olmo", "mpt", "jais", "trillion"), (_GPT2,)),
    **dict.fromkeys(("smollm", "starcoder", "refact", "command-r", "codeshell", "exaone"), (r"\p{N}", _GPT2)),
    **dict.fromkeys(("llama3", "llama-v3", "llama-bpe", "falcon3", "smaug-bpe", "dbrx", "glm4"), _LLAMA3),
    **dict.fromkeys(("qwen2", "deepseek-r1-qwen", "stablelm2", "hunyuan", "solar-open"), _QWEN2),
}
# Digits, blanks, line ends, scripts, combining marks, a token of the template: where tokenizers differ.
TEXTS = (
    "Hello world",
    "In 1984, 12345 apples cost $67.89.",
    "na\u00efve caf\u00e9 Stra\u00dfe \u65e5\u672c\u8a9e \U0001f999 \u03a9\u03bc\u03ad\u03b3\u03b1",
    "def f(x):\n    return x**2\n\n\n# done\t\ttabs",
    "  leading and trailing  ",
    "don't I'll we're THEY'VE",
    "a\u00a0b \u200b c e\u0301",
    "1\n22\n\n333   4444",
    "\u041f\u0440\u0438\u0432\u0435\u0442, \u043c\u0438\u0440! \u0661\u0662\u0663 \u096a\u096b",
    "\r\nCRLF\r\n",
    "\u00bd \u00b2 \u2177 \u3007",
    "x" * 50,
)


def weights(source: Path, folder: Path) -> None:
    """Write a GGUF file's model as Hugging Face's files."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    where: dict[str, Any] = {"gguf_file": source.name, "local_files_only": True, "trust_remote_code": False}
    tokenizer = AutoTokenizer.from_pretrained(source.parent, **where)
    model = AutoModelForCausalLM.from_pretrained(source.parent, dtype=torch.float32, **where)
    model.hf_quantizer, model.is_quantized = None, False  # the weights are plain numbers now
    del model.config.quantization_config
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    cut(source, folder / "tokenizer.json")


def cut(source: Path, path: Path) -> None:
    """Have a tokenizer of bytes cut texts as the GGUF file says: transformers 5 leaves that to GPT-2's way."""
    said = texts_of(source)
    if said.get("tokenizer.ggml.model") != "gpt2":
        return
    name = said.get("tokenizer.ggml.pre", "")
    if name not in PATTERNS:
        sys.exit(f"how its tokenizer cuts texts is called {name!r}, which is not known: build from safetensors")
    tokenizer = json.loads(path.read_text("utf-8"))
    tokenizer["pre_tokenizer"] = cutting(name)
    path.write_text(json.dumps(tokenizer, ensure_ascii=False), "utf-8")


def cutting(name: str) -> dict[str, Any]:
    """One of the ways as tokenizer.json has it, in patterns alone: ONNX Runtime GenAI follows nothing else there."""
    cuts = [
        {"type": "Split", "pattern": {"Regex": one}, "behavior": "Isolated", "invert": False} for one in PATTERNS[name]
    ]
    letters = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": False}
    return {"type": "Sequence", "pretokenizers": [*cuts, letters]}


def texts_of(source: Path) -> dict[str, str]:
    """The texts among a GGUF file's metadata."""
    from gguf import GGUFReader, GGUFValueType

    fields = GGUFReader(source).fields.items()
    return {key: str(one.contents()) for key, one in fields if one.types == [GGUFValueType.STRING]}


def tokens(source: Path, folder: Path) -> None:
    """Print the texts that are split otherwise by the runtime than by the tokenizer it was built from."""
    import onnxruntime_genai as genai
    from tokenizers import Tokenizer

    known = Tokenizer.from_file(str(source / "tokenizer.json"))
    runtime = genai.Tokenizer(genai.Model(str(folder)))
    odd = [
        one
        for one in TEXTS
        if [int(token) for token in runtime.encode(one)] != known.encode(one, add_special_tokens=False).ids
    ]
    sys.stdout.write(json.dumps({"texts": len(TEXTS), "differ": odd}) + "\n")


if __name__ == "__main__":
    {"weights": weights, "tokens": tokens}[sys.argv[1]](Path(sys.argv[2]), Path(sys.argv[3]))
