"""Whatever stands in a file that calls itself MELT's: numbers, or one clear line; never another exception."""

from __future__ import annotations

from pathlib import Path

from hypothesis import given, settings
from hypothesis import strategies as st

from meltbench.errors import UserError
from meltbench.imports.foreign import File
from meltbench.imports.melt.account import overall, tell
from meltbench.imports.melt.differences import differences
from meltbench.imports.melt.study import read
from meltbench.report.melt import as_json, sheets
from meltbench.store.manifest import dump_value

FIXTURES = Path(__file__).parents[1] / "contract" / "melt"
GOOD = {path.name: path.read_bytes() for path in sorted(FIXTURES.rglob("*")) if path.is_file()}
TOLD = {"current_unit": "uA", "voltage_unit": "uV", "discharge_sign": -1, "columns": "current,voltage"}


def look(files, power=None, options=None):
    """Read them and make everything that the command prints of them."""
    try:
        found = read([File(name, raw) for name, raw in files], power, options or {})
        told = tell(found, 0.1)
    except UserError as error:
        if "\n" in str(error):
            raise AssertionError("an error of several lines") from error
        return
    assert dump_value(as_json(found, told)).isascii()
    for sheet in sheets(found, told):
        assert all(len(row) == len(sheet.columns) for row in sheet.rows)
    differences(told, [log for _, log in found.operators])
    overall(told)
    for one in told:
        for measure in one.ours.measures:
            assert (measure.value is None) == bool(measure.reason)


@settings(max_examples=150, deadline=None)
@given(st.sampled_from(sorted(GOOD)), st.binary(max_size=300))
def test_any_bytes_under_any_name(name, raw):
    look([(name, raw)])


def damaged(raw, where, cut, put):
    at = where % (len(raw) + 1)
    return raw[:at] + put + raw[at + cut :]


@settings(max_examples=250, deadline=None)
@given(
    st.sampled_from(["phone", "app", "cli"]),
    st.lists(
        st.tuples(st.integers(0, 9), st.integers(0, 10**6), st.integers(0, 400), st.binary(max_size=12)),
        min_size=1,
        max_size=4,
    ),
)
def test_a_run_whose_files_are_damaged(folder, damages):
    paths = sorted(path for path in (FIXTURES / folder).rglob("*") if path.is_file())
    files = {path.name: path.read_bytes() for path in paths}
    for which, where, cut, put in damages:
        name = paths[which % len(paths)].name
        files[name] = damaged(files[name], where, cut, put)
    look(list(files.items()), options={"rate_hz": 50} if folder == "phone" else None)


@settings(max_examples=120, deadline=None)
@given(
    st.sampled_from(
        ["operators_llamacpp.log", "operators_mlc.log", "operators_mlc_chunked.log", "measurements_adb.csv"]
    ),
    st.integers(0, 10**6),
    st.integers(0, 200),
    st.binary(max_size=12),
)
def test_a_damaged_log_of_operators_or_of_a_gauge(name, where, cut, put):
    raw = damaged(GOOD[name], where, cut, put)
    if name == "measurements_adb.csv":
        events = [(name, raw) for name, raw in GOOD.items() if name.endswith("conv0.tsv")]
        look([*events, (name, raw)], options=TOLD)
    else:
        look([(name, raw)])


numbers = st.one_of(st.integers(-(10**21), 10**21), st.sampled_from([0, 1, 2**62, 2**63, 10**19 - 1]))
marks = st.one_of(
    st.builds("prompt.{}.tokenize".format, st.integers(0, 9)),
    st.builds("generate.{}.decode".format, st.integers(0, 12)),
    st.builds("prefill.{}".format, st.integers(0, 4)),
    st.builds("generate.decode.{}".format, st.integers(0, 9)),
    st.builds("chat.{}.0.prefill".format, st.integers(0, 2)),
    st.just("load_model"),
)


@settings(max_examples=150, deadline=None)
@given(st.lists(st.tuples(marks, st.sampled_from(["start", "end"]), numbers), max_size=40))
def test_marks_in_no_sense(rows):
    text = "".join(f"{name}.{edge} {ns}\n" for name, edge, ns in rows)
    states = b'start_date,duration,state\r\n1.0,2.0,"load_model"\r\n9.0,3.5,"a"\r\n1709550000,0,"b"\r\n'
    look([("measurements_iter0_conv0.tsv", text.encode()), ("measurements_iter0_conv0.csv", states)])
