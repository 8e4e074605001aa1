"""Rows out of a Parquet file: it is packed, so a small one may claim, or unpack to, more than memory holds."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from meltbench.errors import DefinitionError, UserError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    import pyarrow as pa
    from pyarrow import parquet as pq

MAX_ROWS = 2_000_000
_MAX_UNPACKED_BYTES = 512 << 20  # as the file itself says it, and as its rows turn out
_BATCH_ROWS = 64
_VALUE_BYTES = 32  # of a number as Python has it
_SMALLER = "split it, or keep only the fields that are asked for"


def parquet_rows(path: Path) -> Iterator[dict[str, Any]]:
    """The rows, a few unpacked at a time.

    Raises UserError for a file that claims or holds more than is read of one, DefinitionError for what is no Parquet.
    """
    import pyarrow as pa

    try:
        yield from _rows(path)
    except (pa.ArrowException, OSError, ValueError, OverflowError) as error:
        if isinstance(error, OSError) and error.errno is not None:
            raise
        said = (str(error).splitlines() or ["it cannot be read"])[0][:200]
        raise DefinitionError(f"{path} is not a Parquet file: {said}", hint="save it again, or as JSONL") from None


def _rows(path: Path) -> Iterator[dict[str, Any]]:
    from pyarrow import parquet as pq

    with path.open("rb") as opened:
        about = pq.read_metadata(opened)
        _check_claims(path, about)
        file = pq.ParquetFile(opened, metadata=about, read_dictionary=_texts(about))
        held_bytes, first = 0, 1
        for batch in file.iter_batches(batch_size=_BATCH_ROWS):
            held_bytes += sum(_held_bytes(column) for column in batch.columns)
            if held_bytes > _MAX_UNPACKED_BYTES:
                most = f"{_MAX_UNPACKED_BYTES >> 20} MiB"
                raise UserError(f"{path}, from row {first} on: more than {most} once unpacked", hint=_SMALLER)
            first += len(batch)
            yield from batch.to_pylist()


def _check_claims(path: Path, about: pq.FileMetaData) -> None:
    """What a file says of itself, before any of it is unpacked."""
    if not 0 <= about.num_rows <= MAX_ROWS:
        raise UserError(f"{path} claims {about.num_rows} rows, at most {MAX_ROWS} are read", hint=_SMALLER)
    unpacked = sum(about.row_group(number).total_byte_size for number in range(about.num_row_groups))
    if not 0 <= unpacked <= _MAX_UNPACKED_BYTES:
        most = f"at most {_MAX_UNPACKED_BYTES >> 20} are read"
        raise UserError(f"{path} claims {unpacked >> 20} MiB once unpacked, {most}", hint=_SMALLER)


def _texts(about: pq.FileMetaData) -> list[str]:
    """The columns of texts: one that the file has once may stand in every row, or any number of times in one, so each
    is kept once until they are counted. That takes longer than to unpack them; what the file says of their size cannot
    be trusted."""
    columns = map(about.schema.column, range(len(about.schema)))
    return [one.path for one in columns if one.physical_type == "BYTE_ARRAY"]


def _held_bytes(column: pa.Array) -> int:
    """About how much memory these values take as Python's own: a short dictionary, or a list of nothing, is unpacked to
    as many values as it stands for."""
    import pyarrow as pa
    from pyarrow import compute

    kind, own = column.type, len(column) * _VALUE_BYTES
    if pa.types.is_struct(kind):
        return own + sum(map(_held_bytes, column.flatten()))
    if pa.types.is_map(kind):
        return own + _held_bytes(column.keys) + _held_bytes(column.items)
    if pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind):
        return own + _held_bytes(column.flatten())
    if pa.types.is_dictionary(kind):
        return own + (compute.sum(_lengths(column.dictionary).take(column.indices)).as_py() or 0)
    return own + (compute.sum(_lengths(column)).as_py() or 0)


def _lengths(column: pa.Array) -> pa.Array:
    """The bytes of each text; of other values none, for they are counted by their number."""
    import pyarrow as pa
    from pyarrow import compute

    kind = column.type
    if pa.types.is_string_view(kind) or pa.types.is_binary_view(kind):
        column = column.cast(pa.large_binary())
    elif not any(is_kind(kind) for is_kind in (pa.types.is_string, pa.types.is_large_string, pa.types.is_binary,
                                               pa.types.is_large_binary, pa.types.is_fixed_size_binary)):  # fmt: skip
        return pa.nulls(len(column))
    return compute.binary_length(column)
