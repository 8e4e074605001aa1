"""Arrow arrays out of Python's lists and numpy's arrays, by their buffers.

``pyarrow.array`` does the same and loads pandas for it, which takes longer than all else that ends a run.
Layout: https://arrow.apache.org/docs/format/Columnar.html
"""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    import numpy as np
    import numpy.typing as npt
    import pyarrow as pa

    from meltbench.store.schema import Column, SqlType

_EPOCH, _MICROSECOND = datetime(1970, 1, 1), timedelta(microseconds=1)
_NUMPY = {"BIGINT": "int64", "INTEGER": "int32", "DOUBLE": "float64", "TIMESTAMP": "int64"}


def schema_of(columns: Iterable[Column]) -> pa.Schema:
    """The Arrow schema of these columns."""
    import pyarrow as pa

    return pa.schema([(column.name, _type(column.type)) for column in columns])


def _type(sql_type: SqlType) -> pa.DataType:
    import pyarrow as pa

    types = {
        "VARCHAR": pa.string(),
        "BIGINT": pa.int64(),
        "INTEGER": pa.int32(),
        "DOUBLE": pa.float64(),
        "TIMESTAMP": pa.timestamp("us"),
    }
    return types[sql_type]


def of_numpy(column: npt.NDArray[Any], kind: pa.DataType, known: npt.NDArray[np.bool_] | None = None) -> pa.Array:
    """Numbers as they are; where ``known`` is False there is none. ValueError for another width than the type's."""
    import numpy as np
    import pyarrow as pa

    if column.dtype.itemsize * 8 != kind.bit_width:
        raise ValueError(f"{column.dtype} for {kind}")
    bits = None if known is None else pa.py_buffer(np.packbits(known, bitorder="little"))
    return pa.Array.from_buffers(kind, len(column), [bits, pa.py_buffer(np.ascontiguousarray(column))])


def of_list(values: Sequence[Any], sql_type: SqlType) -> pa.Array:
    """Texts, numbers or times, None where there is none. Raises what numpy does for a value of another kind."""
    import numpy as np

    known = np.array([value is not None for value in values], dtype=np.bool_)
    if sql_type == "VARCHAR":
        return _of_texts(values, known)
    if sql_type == "TIMESTAMP":
        values = [None if value is None else (value - _EPOCH) // _MICROSECOND for value in values]
    numbers = [0 if value is None else value for value in values]
    return of_numpy(np.array(numbers, dtype=_NUMPY[sql_type]), _type(sql_type), None if known.all() else known)


def _of_texts(values: Sequence[str | None], known: npt.NDArray[np.bool_]) -> pa.Array:
    import numpy as np
    import pyarrow as pa

    texts = [b"" if value is None else value.encode("utf-8") for value in values]
    ends = np.concatenate([[0], np.cumsum([len(text) for text in texts])]).astype(np.int64)
    if ends[-1] > np.iinfo(np.int32).max:
        raise ValueError("a column of more than 2 GiB of text")
    bits = None if known.all() else pa.py_buffer(np.packbits(known, bitorder="little"))
    buffers = [bits, pa.py_buffer(ends.astype(np.int32)), pa.py_buffer(b"".join(texts))]
    return pa.Array.from_buffers(pa.string(), len(values), buffers)


def table(columns: Sequence[Column], held: Mapping[str, Sequence[Any]]) -> pa.Table:
    """A table of lists, by the names of its columns. Raises ValueError for lists of different lengths."""
    import pyarrow as pa

    if len({len(held[column.name]) for column in columns}) > 1:
        raise ValueError("columns of different lengths")
    return pa.Table.from_arrays(
        [of_list(held[column.name], column.type) for column in columns], schema=schema_of(columns)
    )
