"""Requantises a GGUF file with upstream's ``gguf.quants``: a ladder of quantisations without a compiler.

Every weight that llama.cpp would quantise becomes the one type that is asked for, none is spared, so the file's bits
per weight are those of its type; they are counted, not assumed. The metadata are copied byte for byte, and the file
says what it was made from.
"""

from __future__ import annotations

import contextlib
import os
import re
import struct
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from meltbench.errors import MissingExtra, UserError
from meltbench.models.download import check_space
from meltbench.models.ggml import FILE_TYPES, TENSOR_TYPES
from meltbench.models.gguf import DESCENT, Tensor, read_gguf
from meltbench.models.hashes import file_sha256

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path
    from typing import IO

    import numpy as np
    from numpy.typing import NDArray

    from meltbench.models.gguf import Gguf

TYPES = ("Q8_0", "Q5_1", "Q5_0", "Q4_1", "Q4_0")  # that gguf.quants can make, and llama.cpp names files by
_FALLBACK = "F16"
_CHUNK_ELEMENTS = 1 << 24  # 64 MiB as float32: a large embedding is not held as a whole
_QUANTIZATION_VERSION = 2  # ggml's GGML_QNT_VERSION
_U32, _STRING = 4, 8

# What llama.cpp keeps as it is: norms, routers of experts, small convolutions, positions (tensor_allows_quantization
# of its llama-quant.cpp).
_KEPT = re.compile(
    r"_norm\.weight$|ffn_gate_inp|ffn_gate_tid2eid|altup|laurel|per_layer_model_proj|position_embd|token_types"
    r"|ssm_conv1d|shortconv\.conv|time_mix_(first|[wvag]\d|decay|lerp)|attn_rel_b"
)


@dataclass(frozen=True)
class Made:
    """A file as it was made.

    ``requantised`` tensors have the type; ``kept`` are as they were, which no quantisation is for; ``fell_back`` have
    rows that its blocks do not divide, and became F16.
    """

    path: Path
    type: str
    bits_per_weight: float
    size_bytes: int
    sha256: str
    descends_from: str
    requantised: int
    kept: int
    fell_back: int


def check_type(name: str) -> str:
    """Return the type as it is spelt. UserError for one that cannot be made here."""
    if name.upper() not in TYPES:
        hint = f"one of {', '.join(TYPES)}; others are made by llama.cpp's llama-quantize"
        raise UserError(f"{name[:40]!r} is no type that can be made here", hint=hint)
    return name.upper()


def descent(name: str, head: Gguf) -> str:
    """What a file made of ``head`` descends from, ``name`` being what that is called."""
    older = f"; which descends from {head.descends_from}" if head.descends_from else ""
    return f"{name} ({head.file_type or 'unknown type'}, sha256 {file_sha256(head.path)}){older}"


def requantise(source: Path, name: str, kind: str, target: Path, progress: Callable[[int, int], None]) -> Made:
    """Write ``target`` with the weights of the GGUF file ``source``, which is called ``name``, as type ``kind``.

    The file has its name once it is whole. ``progress`` gets (bytes written, of about all). MissingExtra without gguf;
    UserError: a tensor of a type that gguf cannot read, or no space; ModelDamaged: the source is no whole GGUF file.
    """
    head = read_gguf(source)
    if odd := next((one for one in head.tensors if one.size_bytes is None), None):
        raise UserError(f"{source}: {odd.name} is of {odd.type}, which is not known here", hint="take another file")
    said = descent(name, head)
    wanted = tuple(_as_type(tensor, kind) for tensor in head.tensors)
    whole = sum(tensor.size_bytes or 0 for tensor in wanted) + head.data_offset
    part = target.with_name(f".{target.name}.{os.getpid()}.part")
    try:
        check_space(target.parent, whole)
        with part.open("wb") as file:
            file.write(_head(head, wanted, kind, said))
            for before, after in zip(head.tensors, wanted, strict=True):
                _pad(file, head.alignment)
                for chunk in _converted(head, before, after):
                    file.write(chunk)
                    progress(file.tell(), whole)
            _pad(file, head.alignment)
            file.flush()
            os.fsync(file.fileno())
        read_gguf(part)
        part.replace(target)
    except OSError as error:
        raise UserError(f"cannot write {target}: {error.strerror or error}", hint="give another --out") from error
    finally:
        with contextlib.suppress(OSError):
            part.unlink(missing_ok=True)
    return made_of(head, target, kind)


def made_of(head: Gguf, path: Path, kind: str) -> Made:
    """What the file at ``path`` is, which was made of ``head`` as type ``kind``."""
    made = read_gguf(path)
    if made.bits_per_weight is None:
        raise UserError(f"{path} holds no weights", hint="quantize a model, not a vocabulary alone")
    fits = [(_eligible(one), _as_type(one, kind).type == kind) for one in head.tensors]
    return Made(
        path,
        kind,
        made.bits_per_weight,
        made.file_bytes,
        file_sha256(path),
        made.descends_from or "",
        requantised=fits.count((True, True)),
        kept=sum(not eligible for eligible, _ in fits),
        fell_back=fits.count((True, False)),
    )


def _eligible(tensor: Tensor) -> bool:
    """Whether llama.cpp would quantise it. Integers are tables, not weights."""
    is_weight = len(tensor.dims) > 1 and tensor.name.endswith("weight") and not _KEPT.search(tensor.name)
    return is_weight and tensor.type not in ("I8", "I16", "I32", "I64")


def _as_type(tensor: Tensor, kind: str) -> Tensor:
    """The tensor as it is to be; its offset is set later."""
    if not _eligible(tensor):
        return tensor
    block, block_bytes = _shape(kind)
    if tensor.dims[0] % block:
        kind, (block, block_bytes) = _FALLBACK, _shape(_FALLBACK)
    return replace(tensor, type=kind, size_bytes=tensor.elements // block * block_bytes)


def _shape(kind: str) -> tuple[int, int]:
    """Elements and bytes of a block."""
    return next((elements, size) for name, elements, size in TENSOR_TYPES.values() if name == kind)


def _head(head: Gguf, wanted: tuple[Tensor, ...], kind: str, said: str) -> bytes:
    """All that stands before the data; without the padding."""
    with head.path.open("rb") as file:
        own = {
            "general.file_type": _value(_U32, next(n for n, name in FILE_TYPES.items() if name == kind)),
            "general.quantization_version": _value(_U32, _QUANTIZATION_VERSION),
            "general.quantized_by": _value(_STRING, f"meltbench, requantised from {said}"),
            DESCENT: _value(_STRING, said),
        }
        pairs = [_span(file, start, end) for key, start, end in head.spans if key not in own]
    pairs += [_string(key) + value for key, value in own.items()]
    numbers = {name: number for number, (name, _, _) in TENSOR_TYPES.items()}
    infos, at = [], 0
    for tensor in wanted:
        assert tensor.size_bytes is not None
        dims = struct.pack(f"<I{len(tensor.dims)}Q", len(tensor.dims), *tensor.dims)
        infos.append(_string(tensor.name) + dims + struct.pack("<IQ", numbers[tensor.type], at))
        at = -(-(at + tensor.size_bytes) // head.alignment) * head.alignment
    return b"GGUF" + struct.pack("<IQQ", 3, len(infos), len(pairs)) + b"".join(pairs) + b"".join(infos)


def _span(file: IO[bytes], start: int, end: int) -> bytes:
    file.seek(start)
    return file.read(end - start)


def _string(text: str) -> bytes:
    raw = text.encode("utf-8")
    return struct.pack("<Q", len(raw)) + raw


def _value(kind: int, value: int | str) -> bytes:
    return struct.pack("<I", kind) + (_string(value) if isinstance(value, str) else struct.pack("<I", value))


def _pad(file: IO[bytes], alignment: int) -> None:
    file.write(b"\0" * (-file.tell() % alignment))


def _converted(head: Gguf, before: Tensor, after: Tensor) -> Iterator[bytes]:
    """The tensor's bytes as ``after`` wants them, some rows at a time."""
    import numpy as np

    assert before.size_bytes is not None
    rows = before.elements // before.dims[0]
    at = head.data_offset + before.offset
    raw = np.memmap(head.path, np.uint8, "r", at, (rows, before.size_bytes // rows))
    step = max(_CHUNK_ELEMENTS // before.dims[0], 1)
    for first in range(0, rows, step):
        chunk = np.ascontiguousarray(raw[first : first + step])
        yield (chunk if after.type == before.type else _requantised(chunk, before, after.type)).tobytes()


def _requantised(chunk: NDArray[np.uint8], before: Tensor, kind: str) -> NDArray[Any]:
    try:
        import gguf
    except ImportError as error:
        raise MissingExtra("gguf", "quantize") from error
    import numpy as np

    names: Any = gguf.GGMLQuantizationType
    try:
        with np.errstate(all="ignore"):  # a weight that is not finite stays so
            values = gguf.quants.dequantize(chunk, names[before.type])
            made = gguf.quants.quantize(values, names[kind])
    except (NotImplementedError, KeyError) as error:
        said = f"{before.name} is of {before.type}, which gguf cannot read"
        raise UserError(said, hint="take a file of other tensors, such as Q8_0 or F16") from error
    return made
