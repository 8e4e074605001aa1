"""Reads the head of a GGUF file: what the model is, how large, and whether the file is whole.

The file is untrusted: every count and length is bounded before it is used, arrays are stepped over without being
built, and whatever is wrong becomes one ``ModelDamaged`` naming the file, the byte and what was expected there.
Source: the GGUF specification, versions 2 and 3, and llama.cpp's own reader.
"""

from __future__ import annotations

import math
import os
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import IO, NoReturn

from meltbench.errors import ModelDamaged, UserError
from meltbench.models.cursor import Cursor
from meltbench.models.ggml import FILE_TYPES, TENSOR_TYPES

MAX_KEYS = 65_536
MAX_TENSORS = 65_536
MAX_STRINGS = 4_194_304  # of all string arrays of one file; the largest vocabularies have about 260,000 tokens
MAX_KEPT_ARRAY = 4_096
MAX_DIMS = 4
MAX_ELEMENTS = 2**63 - 1
MAX_LAYERS = 65_536
MAX_TEMPLATE_BYTES = 1 << 20  # of a chat template that is looked into; the longest of known models have 20 kB

BOOL, STRING, ARRAY = 7, 8, 9  # the types of values
SCALARS = {
    0: "<B",
    1: "<b",
    2: "<H",
    3: "<h",
    4: "<I",
    5: "<i",
    6: "<f",
    7: "<B",
    10: "<Q",
    11: "<q",
    12: "<d",
}
_SKIPPED = "a string"
DESCENT = "meltbench.descends_from"  # in files that models/quantize.py writes
_KEPT_STRINGS = {"general.architecture", "general.name", DESCENT}
# Where llama.cpp looks for the form of conversations; the second is taken where the first is empty.
_TEMPLATES = ("tokenizer.chat_template", "tokenizer.chat_template.tool_use")
_KEPT_ARRAYS = (".attention.head_count", ".attention.head_count_kv")

Value = int | float | str | tuple[int | float, ...]


@dataclass(frozen=True)
class Tensor:
    """One tensor: ``offset`` counts from the start of the data; ``size_bytes`` is None for unknown types."""

    name: str
    dims: tuple[int, ...]
    type: str
    offset: int
    elements: int
    size_bytes: int | None


@dataclass(frozen=True)
class Gguf:
    """What a GGUF file says of its model; None where it does not say.

    ``head_count`` and ``head_count_kv`` are one number, or one a layer. ``key_length`` and ``value_length`` are the
    elements of one head. ``file_type`` is the quantisation's name, e.g. "Q4_K_M". ``descends_from``: what it was
    requantised from, where that was done here. An empty chat template is none; ``template_thinks``: whether it says
    anything of thinking, None where it is too long to be looked into. ``spans``: where in the file each metadata key
    and its value lie.
    """

    path: Path
    file_bytes: int
    version: int
    architecture: str
    name: str | None
    block_count: int | None
    context_length: int | None
    embedding_length: int | None
    head_count: int | tuple[int, ...] | None
    head_count_kv: int | tuple[int, ...] | None
    key_length: int | None
    value_length: int | None
    vocab_size: int | None
    bos_token_id: int | None
    file_type: str | None
    has_chat_template: bool
    template_thinks: bool | None
    descends_from: str | None
    alignment: int
    data_offset: int
    tensors: tuple[Tensor, ...]
    spans: tuple[tuple[str, int, int], ...]

    @property
    def n_params(self) -> int:
        """Elements of all tensors."""
        return sum(t.elements for t in self.tensors)

    @property
    def tensor_bytes(self) -> int | None:
        """Bytes of all tensors; None when one has a type this reader does not know."""
        sizes = [t.size_bytes for t in self.tensors]
        return None if None in sizes else sum(s for s in sizes if s is not None)

    @property
    def bits_per_weight(self) -> float | None:
        """Tensor bytes x 8 / parameters, as llama.cpp prints it."""
        if self.tensor_bytes is None or not self.n_params:
            return None
        return self.tensor_bytes * 8 / self.n_params

    def kv_cache_bytes(self, n_ctx: int) -> int:
        """Bytes of an f16 KV cache of so many tokens. UserError when the file does not give the sizes."""
        return kv_cache_bytes(self, n_ctx)


def read_gguf(path: str | os.PathLike[str]) -> Gguf:
    """Read the header of the GGUF file at ``path`` and check that its tensors lie within the file.

    UserError: the file cannot be read, is not GGUF (it says what it looks like), is big-endian or of another
    version. ModelDamaged: it is corrupt or truncated.
    """
    where = Path(path)
    try:
        with where.open("rb") as file:
            return _Reader(file, where).read()
    except OSError as error:
        raise UserError(f"cannot read {where}: {error.strerror or error}") from error


def kv_cache_bytes(meta: Gguf, n_ctx: int, bytes_per_elem: float = 2) -> int:
    """Bytes of the KV cache for ``n_ctx`` tokens: n_ctx x sum over layers of KV heads x (key + value length).

    ``bytes_per_elem`` is 2 for f16, 34/32 for q8_0. An upper bound where an architecture keeps a sliding window or
    compresses its cache. UserError when the file does not give the sizes.
    """
    heads = meta.head_count
    if meta.block_count is None or heads is None:
        raise _unsized(meta, "block_count" if meta.block_count is None else "attention.head_count")
    kv_heads = heads if meta.head_count_kv is None else meta.head_count_kv
    total_heads = sum(kv_heads) if isinstance(kv_heads, tuple) else kv_heads * meta.block_count
    key, value = meta.key_length, meta.value_length
    if key is None or value is None:
        first = heads if isinstance(heads, int) else next((h for h in heads if h), 0)
        if not first or meta.embedding_length is None:
            raise _unsized(meta, "embedding_length" if first else "attention.head_count above 0")
        head_dim = meta.embedding_length // first
        key, value = head_dim if key is None else key, head_dim if value is None else value
    return math.ceil(n_ctx * total_heads * (key + value) * bytes_per_elem)


def _unsized(meta: Gguf, key: str) -> UserError:
    return UserError(f"{meta.path.name} does not give {meta.architecture}.{key}: the KV cache cannot be sized")


class _Reader:
    """One pass over one file's header."""

    def __init__(self, file: IO[bytes], path: Path) -> None:
        self.size = os.fstat(file.fileno()).st_size
        self.cur = Cursor(file, path, self.size)
        self.spans: dict[str, tuple[int, int]] = {}
        self.values: dict[str, tuple[Value, int]] = {}
        self.strings = 0
        self.vocab_size: int | None = None
        self.has_chat_template = False
        self.template_thinks: bool | None = False

    def read(self) -> Gguf:
        version = self._magic()
        n_tensors = self._count("tensors", MAX_TENSORS)
        for _ in range(self._count("metadata keys", MAX_KEYS)):
            self._pair()
        infos = [self._tensor() for _ in range(n_tensors)]
        alignment = self._alignment()
        data_offset = self._check_data(infos, alignment)
        return self._result(version, tuple(infos), alignment, data_offset)

    def _magic(self) -> int:
        head = self.cur.take(min(64, self.size), "the file's first bytes")
        if head[:4] != b"GGUF":
            _not_gguf(self.cur.path, head)
        self.cur.pos = 4
        version = self.cur.u32("the version")
        if version in (2, 3):
            return version
        if int.from_bytes(version.to_bytes(4, "little"), "big") in (1, 2, 3):
            raise UserError(f"{self.cur.path} is a big-endian GGUF file", hint="use a little-endian conversion")
        raise UserError(f"{self.cur.path} is GGUF version {version}", hint="versions 2 and 3 are supported")

    def _count(self, what: str, limit: int) -> int:
        count = self.cur.u64(f"the number of {what}")
        if count > limit:
            self.cur.fail(f"at most {limit} {what}, got {count}", self.cur.pos - 8)
        return count

    def _pair(self) -> None:
        start = self.cur.pos
        key = self.cur.string(1024, "a metadata key")
        if not key or key in self.spans:
            self.cur.fail("a new metadata key" if key else "a metadata key, got an empty one", start)
        at = self.cur.pos
        kind = self.cur.u32(f"the type of {key}")
        if kind == ARRAY:
            self._array(key)
        elif kind == STRING:
            if key in _KEPT_STRINGS:
                self.values[key] = self.cur.string(65_536, key), at
            else:
                self._text_aside(key)
                self.values[key] = _SKIPPED, at
        elif kind in SCALARS:
            value = self.cur.scalar(SCALARS[kind], key)
            if kind == BOOL and value not in (0, 1):
                self.cur.fail(f"0 or 1 for {key}, got {value}", self.cur.pos - 1)
            self.values[key] = value, at
        else:
            self.cur.fail(f"a value type for {key}, got {kind}", at)
        self.spans[key] = start, self.cur.pos

    def _text_aside(self, key: str) -> None:
        """Step over a text; of a chat template see what is asked of it, whatever bytes it is made of."""
        length = self.cur.u64(f"the length of {key}")
        if key not in _TEMPLATES or not length:
            self.cur.skip(length, key)
            return
        self.has_chat_template = True
        if length > MAX_TEMPLATE_BYTES:
            self.cur.skip(length, key)
            self.template_thinks = None
        elif b"think" in self.cur.take(length, key).lower() and self.template_thinks is not None:
            self.template_thinks = True

    def _array(self, key: str) -> None:
        at = self.cur.pos
        self.values[key] = (), at  # present, and no number: whoever wants one is told so
        kind = self.cur.u32(f"the element type of {key}")
        count = self.cur.u64(f"the length of {key}")
        if key == "tokenizer.ggml.tokens":
            self.vocab_size = count
        if kind == STRING:
            self.strings += count
            if self.strings > MAX_STRINGS:
                self.cur.fail(f"at most {MAX_STRINGS} strings in arrays, got {self.strings} with {key}", at)
            self.cur.skip_strings(count, key)
        elif kind in SCALARS:
            form = SCALARS[kind]
            if key.endswith(_KEPT_ARRAYS) and count <= MAX_KEPT_ARRAY:
                self.values[key] = tuple(self.cur.scalar(form, key) for _ in range(count)), at
            else:
                self.cur.skip(count * struct.calcsize(form), key)
        else:
            self.cur.fail(f"a scalar or string element type for {key}, got {kind}", at)

    def _tensor(self) -> Tensor:
        start = self.cur.pos
        name = self.cur.string(1024, "a tensor name")
        n_dims = self.cur.u32(f"the dimensions of {name}")
        if not 1 <= n_dims <= MAX_DIMS:
            self.cur.fail(f"1 to {MAX_DIMS} dimensions of {name}, got {n_dims}", start)
        dims = tuple(self.cur.u64(f"a dimension of {name}") for _ in range(n_dims))
        elements = math.prod(dims)
        if not 1 <= elements <= MAX_ELEMENTS:
            self.cur.fail(f"1 to 2^63 elements in {name}, got {' x '.join(map(str, dims))}", start)
        number = self.cur.u32(f"the type of {name}")
        offset = self.cur.u64(f"the offset of {name}")
        if number not in TENSOR_TYPES:
            return Tensor(name, dims, f"type {number}", offset, elements, None)
        label, block, block_bytes = TENSOR_TYPES[number]
        if dims[0] % block:
            self.cur.fail(f"rows of {name} in blocks of {block} for {label}, got {dims[0]}", start)
        return Tensor(name, dims, label, offset, elements, elements // block * block_bytes)

    def _alignment(self) -> int:
        alignment = self._whole("general.alignment")
        if alignment is None:
            return 32
        if alignment < 1 or alignment > 1 << 20 or alignment & (alignment - 1):
            self.cur.fail(f"a power of 2 for general.alignment, got {alignment}", self.values["general.alignment"][1])
        return alignment

    def _check_data(self, infos: list[Tensor], alignment: int) -> int:
        """Return where the data start, after checking that every tensor lies within the file."""
        if len({t.name for t in infos}) < len(infos):
            self.cur.fail("distinct tensor names")
        data_offset = -(-self.cur.pos // alignment) * alignment
        for tensor in infos:
            end = data_offset + tensor.offset + (tensor.size_bytes or 0)
            if end > self.size:
                raise ModelDamaged(
                    f"corrupt GGUF {self.cur.path}: truncated: {tensor.name} ends at byte {end}, "
                    f"expected a file of at least that, got {self.size}",
                    hint="fetch the file again",
                )
            if tensor.offset % alignment:
                self.cur.fail(f"{tensor.name} aligned to {alignment} bytes, got offset {tensor.offset}")
        return data_offset

    def _result(self, version: int, infos: tuple[Tensor, ...], alignment: int, data_offset: int) -> Gguf:
        arch = self._text("general.architecture")
        if not arch:
            self.cur.fail("general.architecture among the metadata")
        blocks = self._whole(f"{arch}.block_count")
        if blocks is not None and not 0 <= blocks <= MAX_LAYERS:
            self.cur.fail(f"at most {MAX_LAYERS} blocks, got {blocks}", self.values[f"{arch}.block_count"][1])
        file_type = self._whole("general.file_type")
        return Gguf(
            path=self.cur.path,
            file_bytes=self.size,
            version=version,
            architecture=arch,
            name=self._text("general.name"),
            block_count=blocks,
            context_length=self._whole(f"{arch}.context_length"),
            embedding_length=self._whole(f"{arch}.embedding_length"),
            head_count=self._one_or_each(f"{arch}.attention.head_count", blocks),
            head_count_kv=self._one_or_each(f"{arch}.attention.head_count_kv", blocks),
            key_length=self._whole(f"{arch}.attention.key_length"),
            value_length=self._whole(f"{arch}.attention.value_length"),
            vocab_size=self.vocab_size,
            bos_token_id=self._whole("tokenizer.ggml.bos_token_id"),
            file_type=None if file_type is None else FILE_TYPES.get(file_type, f"type {file_type}"),
            has_chat_template=self.has_chat_template,
            template_thinks=self.template_thinks,
            descends_from=self._text(DESCENT),
            alignment=alignment,
            data_offset=data_offset,
            tensors=infos,
            spans=tuple((key, start, end) for key, (start, end) in self.spans.items()),
        )

    def _whole(self, key: str) -> int | None:
        """Return a whole number that is not negative; None where the file does not have the key."""
        if key not in self.values:
            return None
        value, at = self.values[key]
        if not isinstance(value, int) or value < 0:
            self.cur.fail(f"a whole number for {key}, got {_shown(value)}", at)
        return value

    def _one_or_each(self, key: str, blocks: int | None) -> int | tuple[int, ...] | None:
        value, at = self.values.get(key, (None, 0))
        if not isinstance(value, tuple):
            return self._whole(key)
        whole = tuple(v for v in value if isinstance(v, int) and v >= 0)
        if len(whole) != len(value) or len(value) != blocks:
            self.cur.fail(f"{blocks} whole numbers for {key}, got {_shown(value)}", at)
        return whole

    def _text(self, key: str) -> str | None:
        if key not in self.values:
            return None
        value, at = self.values[key]
        if not isinstance(value, str):
            self.cur.fail(f"a string for {key}, got {_shown(value)}", at)
        return value


def _shown(value: Value) -> str:
    return "a list" if isinstance(value, tuple) else repr(value)[:40]


def _not_gguf(path: Path, head: bytes) -> NoReturn:
    text = head.lstrip().lower()
    looks = (
        "it is empty"
        if not head
        else "it is a Git LFS pointer, not the file itself"
        if text.startswith(b"version https://git-lfs")
        else "it looks like a web page"
        if text.startswith((b"<!doctype", b"<html", b"<?xml"))
        else "it looks like a JSON answer"
        if text.startswith(b"{")
        else "it is a ZIP archive"
        if head.startswith(b"PK\x03\x04")
        else f"it starts with {head[:8].hex(' ')}"
    )
    raise UserError(f"{path} is not a GGUF file: {looks}", hint="expected a file that starts with 'GGUF'")
