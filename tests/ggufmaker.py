"""Writes small valid GGUF files, byte by byte, so that tests own every one of them."""

import struct

TYPES = {"u8": 0, "i8": 1, "u16": 2, "i16": 3, "u32": 4, "i32": 5, "f32": 6, "bool": 7, "str": 8, "arr": 9, "u64": 10}
FORMS = {"u8": "B", "i8": "b", "u16": "H", "i16": "h", "u32": "I", "i32": "i", "f32": "f", "bool": "B", "u64": "Q"}
BLOCKS = {"F32": (0, 1, 4), "F16": (1, 1, 2), "Q4_1": (3, 32, 20), "Q8_0": (8, 32, 34), "Q4_K": (12, 256, 144)}

LLAMA = {
    "general.architecture": ("str", "llama"),
    "general.name": ("str", "Tiny"),
    "general.file_type": ("u32", 3),
    "llama.block_count": ("u32", 2),
    "llama.context_length": ("u32", 64),
    "llama.embedding_length": ("u32", 32),
    "llama.attention.head_count": ("u32", 4),
    "llama.attention.head_count_kv": ("u32", 2),
    "tokenizer.ggml.tokens": ("arr", "str", ["<s>", "a", "b"]),
    "tokenizer.ggml.scores": ("arr", "f32", [0.0, 1.0, 2.0]),
    "tokenizer.ggml.bos_token_id": ("u32", 0),
    "tokenizer.chat_template": ("str", "{{ messages }}"),
}
TENSORS = [("token_embd.weight", (32, 3), "Q4_1"), ("output_norm.weight", (32,), "F32")]


def string(text):
    raw = text.encode()
    return struct.pack("<Q", len(raw)) + raw


def value(kind, *rest):
    if kind == "str":
        return string(rest[0])
    if kind == "arr":
        element, items = rest
        body = b"".join(value(element, item) for item in items)
        return struct.pack("<IQ", TYPES[element], len(items)) + body
    return struct.pack("<" + FORMS[kind], rest[0])


def header(meta=None, tensors=None, version=3):
    """The bytes before the data, without padding; ``tensors`` are (name, dims, type) or with an offset."""
    meta, tensors = LLAMA if meta is None else meta, TENSORS if tensors is None else tensors
    out = b"GGUF" + struct.pack("<IQQ", version, len(tensors), len(meta))
    for key, entry in meta.items():
        out += string(key) + struct.pack("<I", TYPES[entry[0]]) + value(*entry)
    at = 0
    for name, dims, kind, *offset in tensors:
        number = BLOCKS[kind][0] if isinstance(kind, str) else kind
        start = offset[0] if offset else at
        out += string(name) + struct.pack(f"<I{len(dims)}QIQ", len(dims), *dims, number, start)
        at = -(-(start + size(dims, kind)) // 32) * 32
    return out


def size(dims, kind):
    elements = 1
    for dim in dims:
        elements *= dim
    if not isinstance(kind, str):
        return 0
    _, block, block_bytes = BLOCKS[kind]
    return elements // block * block_bytes


def gguf(meta=None, tensors=None, version=3, filler=b"\x5a"):
    """A whole file: header, padding to 32 bytes, and data for every tensor."""
    tensors = TENSORS if tensors is None else tensors
    head = header(meta, tensors, version)
    body = b"".join(filler * size(dims, kind) + b"\0" * (-size(dims, kind) % 32) for _, dims, kind, *_ in tensors)
    return head + b"\0" * (-len(head) % 32) + body
