"""Arrow arrays by their buffers are what pyarrow itself would make, and cost no pandas."""

from __future__ import annotations

import subprocess
import sys
from datetime import datetime
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from meltbench.store import arrow
from meltbench.store.schema import Column

VALUES = {
    "VARCHAR": st.text(st.characters(codec="utf-8"), max_size=20),
    "BIGINT": st.integers(-(2**63), 2**63 - 1),
    "INTEGER": st.integers(-(2**31), 2**31 - 1),
    "DOUBLE": st.floats(allow_nan=False),
    "TIMESTAMP": st.datetimes(min_value=datetime(1900, 1, 1)),
}


@pytest.mark.parametrize("kind", VALUES)
@settings(deadline=None)
@given(data=st.data())
def test_a_list_becomes_the_array_that_pyarrow_makes_of_it(kind, data):
    values = data.draw(st.lists(st.none() | VALUES[kind], max_size=20))
    made = arrow.of_list(values, kind)
    made.validate(full=True)
    assert made.equals(pa.array(values, made.type))


@settings(deadline=None)
@given(st.lists(st.floats(allow_nan=True), max_size=30))
def test_numbers_keep_their_bits_and_a_missing_one_is_null(values):
    column = np.array(values, dtype=np.float64)
    made = arrow.of_numpy(column, pa.float64(), ~np.isnan(column))
    made.validate(full=True)
    assert made.to_pylist() == [None if np.isnan(value) else value for value in values]


def test_what_does_not_fit_is_an_error():
    with pytest.raises(ValueError, match="int32 for int64"):
        arrow.of_numpy(np.zeros(3, np.int32), pa.int64())
    with pytest.raises(ValueError, match="different lengths"):
        arrow.table((Column("a", "BIGINT", ""), Column("b", "BIGINT", "")), {"a": [1], "b": []})
    with pytest.raises(OverflowError):
        arrow.of_list([2**63], "BIGINT")


_STORING = """
import sys
from pathlib import Path
sys.path.insert(0, sys.argv[2])
from store_kit import store_at
store_at(Path(sys.argv[1]), 1)
print("pandas" in sys.modules)
"""


def test_storing_and_indexing_a_run_loads_no_pandas(tmp_path):
    argv = [sys.executable, "-c", _STORING, str(tmp_path), str(Path(__file__).parents[1])]
    assert subprocess.check_output(argv, text=True) == "False\n"
