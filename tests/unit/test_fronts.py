"""``meltbench pareto``: arms of stored runs, numbers from several workloads, and what is left out."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from jsoncheck import NAMED, problems
from store_kit import manifest_of, open_run, store_at
from typer.testing import CliRunner

from meltbench.analysis.constraints import parse
from meltbench.cli.app import app
from meltbench.errors import UnknownName, UserError
from meltbench.fronts import pareto
from meltbench.records import Measure, RunRecord, Score
from meltbench.selecting import Selection
from meltbench.store import Store
from meltbench.store.index import opened

Document = dict[str, Any]
UNITS = {"ttft_s": ("s", "median"), "decode_tps": ("1/s", "median"), "peak_rss_bytes": ("B", "max")}


def measure(name: str, value: float, prefix: str = "", **more: Any) -> Measure:
    unit, stat = UNITS.get(name, ("J", "ratio_of_sums"))
    if name.startswith("j_per"):
        more = {"scope": "soc", "klass": "B", "source": "total", "u_k2": 0.06 * value} | more
    return Measure(f"{prefix}{name}", value, unit, stat, **more)


def run(
    store: Store, model: str = "m1", *, device: str = "pi", workload: str = "quick", mode: str = "server", n: int = 1,
    group: str = "", knobs: dict[str, Any] | None = None, right: int | None = None, phase: str = "run",
    meter: dict[str, Any] | None = None,
    **values: float,
) -> list[str]:  # fmt: skip
    """Store ``n`` runs whose numbers differ by a per cent from one to the next."""
    made = []
    for k in range(n):
        folder = open_run(store)
        about = manifest_of(folder.run_id) | {"validity": "valid", "rep": k}
        about |= {"cell_key": f"{model} {device} {workload} {mode} {knobs}", "knobs": {"ctx": 512, "threads": 2}}
        about["knobs"] |= knobs or {}
        about["device"] = {"name": device, "identity": f"id-{device}"}
        about["model"] = about["model"] | {"name": model, "sha256": model, "bytes": 1000 + len(model)}
        about["runner"] = about["runner"] | {"mode": mode, "name": f"llama-{mode}"}
        about["workload"] = {"name": workload, "sha256": workload, "repeat": 1}
        prefix = {"bench": "bench_"}.get(mode, "")
        numbers = [
            measure(name, value * (1 + 0.01 * k), prefix, phase=phase, **(meter or {}))
            for name, value in values.items()
        ]
        if meter is not None or any(name.startswith("j_per") for name in values):
            numbers.append(
                Measure("energy_j", 9.0, "J", **{"scope": "soc", "klass": "B", "source": "total"} | (meter or {}))
            )
        scores = []
        if right is not None:
            scores = [Score(f"q{q}", "match", float(q < right), True, group=group) for q in range(100)]
            numbers.append(Measure("accuracy", right / 100, "1", "mean", n=100, u_k2=0.1, phase=phase))
        store.commit(folder, RunRecord(folder.run_id, about, measures=numbers, scores=scores))
        store.ingest(folder.run_id)
        made.append(folder.run_id)
    return made


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return store_at(tmp_path / "data")


def fronted(store: Store, *axes: str, select: str = "", where: str | None = None, **more: Any) -> Document:
    with opened(store) as connection:
        condition = None if where is None else parse(where)
        found = pareto(connection, Selection.parse(select), axes, where=condition, draws=200, **more)
    assert problems(NAMED["pareto"], found) == []
    return found


def arms(found: Document) -> dict[str, Document]:
    return {f"{arm['about']['device']} {arm['about']['model']}": arm for arm in found["arms"]}


def flags(arm: Document) -> list[str]:
    return [flag.partition(":")[0] for flag in arm["flags"]]


def test_an_arm_has_its_numbers_from_several_workloads(store: Store) -> None:
    quick = run(store, n=3, ttft_s=0.5)
    scored = run(store, workload="hellaswag", right=60, ttft_s=2.0)
    run(store, "m2", n=3, ttft_s=1.0)
    run(store, "m2", workload="hellaswag", right=40)
    run(store, "m3", n=2, ttft_s=0.1)
    found = fronted(store, "ttft_s", "accuracy")
    assert [(axis["workload"], axis["mode"], axis["arms"]) for axis in found["axes"]] == [
        ("quick", "server", 3), ("hellaswag", "server", 2),
    ]  # fmt: skip
    assert found["axes"][0]["alternatives"] == ["hellaswag/server"]
    one, two = arms(found)["pi m1"], arms(found)["pi m2"]
    assert [number["runs"] for number in one["numbers"]] == [quick, scored]
    assert [number["value"] for number in one["numbers"]] == [pytest.approx(0.505), 0.6]
    assert (one["on_front"], two["on_front"]) == (True, False)
    assert (one["p_front"], two["p_front"]) == (1.0, 0.0)
    assert (two["dominated_by"], two["p_dominated"]) == (one["name"], 1.0)
    assert [(arm["name"].split()[1], arm["lacks"]) for arm in found["left_out"]] == [
        ("m3", ["accuracy@hellaswag/server"])
    ]


def test_an_axis_may_name_its_workload_mode_and_point(store: Store) -> None:
    for model, rate in (("m1", 10.0), ("m2", 20.0)):
        run(store, model, n=2, ttft_s=1.0, decode_tps=rate)
        run(store, model, workload="grid", mode="bench", n=2, phase="tg128", decode_tps=3 * rate)
    found = fronted(store, "ttft_s@quick", "decode_tps@grid/bench/tg128")
    assert [number["value"] for number in arms(found)["pi m1"]["numbers"]] == [1.005, pytest.approx(30.15)]
    assert (found["axes"][1]["asked"], found["axes"][1]["point"]) == ("decode_tps@grid/bench/tg128", "tg128")
    with pytest.raises(UserError, match="no run of the selection has decode_tps@grid/server") as caught:
        fronted(store, "ttft_s", "decode_tps@grid/server")
    assert caught.value.hint == "it is in grid/bench/tg128, quick/server"


def test_of_places_that_as_many_arms_have_one_that_another_axis_is_of_is_taken(store: Store) -> None:
    for model in ("m1", "m2"):
        run(store, model, n=3, ttft_s=1.0)
        run(store, model, workload="long", ttft_s=2.0, decode_tps=5.0)
        run(store, model, workload="grid", n=4, phase="tg64", decode_tps=6.0)
    found = fronted(store, "decode_tps", "ttft_s")
    assert [(axis["workload"], axis["point"]) for axis in found["axes"]] == [("long", ""), ("long", "")]
    assert fronted(store, "ttft_s", "decode_tps")["axes"][0]["workload"] == "quick"  # the one with more runs


def test_the_accuracy_of_a_domain_is_of_its_items(store: Store) -> None:
    for model, right in (("m1", 60), ("m2", 66)):
        run(store, model, n=2, ttft_s=1.0)
        run(store, model, workload="mmlu", right=right, phase="law", group="law")
    found = arms(fronted(store, "ttft_s", "accuracy@mmlu/server/law"))
    assert [found[name]["numbers"][1]["value"] for name in ("pi m1", "pi m2")] == [0.6, 0.66]
    assert found["pi m2"]["numbers"][1]["lo"] > 0.5
    # The second is right wherever the first is, which only the items one by one can tell.
    assert fronted(store, "accuracy@mmlu/server/law", "model_bytes")["arms"][1]["p_front"] < 0.05


def test_runs_of_other_settings_are_arms_of_their_own(store: Store) -> None:
    run(store, n=3, ttft_s=0.5, decode_tps=10.0)
    run(store, n=3, ttft_s=0.3, decode_tps=17.0, knobs={"threads": 4})
    run(store, n=2, ttft_s=0.3, decode_tps=17.0, knobs={"threads": 4, "ctx": 4096})  # follows from what was asked
    run(store, workload="hellaswag", right=60)
    run(store, workload="grid", n=2, peak_rss_bytes=1e9)
    found = fronted(store, "ttft_s", "accuracy")
    assert [(arm["settings"], len(arm["numbers"][0]["runs"])) for arm in found["arms"]] == [
        ({"threads": "4"}, 5), ({"threads": "2"}, 3),
    ]  # fmt: skip
    assert found["arms"][0]["numbers"][1]["value"] == 0.6  # asked once, and of any number of threads
    assert "unlike_settings: threads is 4 for ttft_s, 2 for accuracy" in found["arms"][0]["flags"]
    other = fronted(store, "ttft_s", "peak_rss_bytes")  # but memory is of the threads that it was measured with
    assert [arm["settings"] for arm in other["arms"]] == [{"threads": "2"}]
    assert [arm["lacks"] for arm in other["left_out"]] == [["peak_rss_bytes@grid/server"]]


def test_an_accuracy_may_be_taken_over_from_another_device(store: Store) -> None:
    for device, ttft_s in (("pi", 2.0), ("desk", 0.2), ("phone", 1.0)):
        run(store, device=device, n=3, ttft_s=ttft_s)
    run(store, device="desk", workload="hellaswag", right=60)
    assert list(arms(fronted(store, "ttft_s", "accuracy"))) == ["desk m1"]
    found = arms(fronted(store, "ttft_s", "accuracy", inherit=True))
    assert [arm["numbers"][1]["value"] for arm in found.values()] == [0.6] * 3
    assert found["pi m1"]["flags"] == ["accuracy_inherited: scored on desk, same model and engine"]
    assert found["desk m1"]["flags"] == []
    assert [found[name]["p_front"] for name in ("desk m1", "phone m1", "pi m1")] == [1.0, 0.0, 0.0]


def test_energies_of_other_meters_are_flagged_and_never_pooled(store: Store) -> None:
    run(store, n=3, ttft_s=0.5, j_per_output_token=1.0)
    wall = {"scope": "wall", "klass": "A"}
    run(store, n=1, ttft_s=0.5, j_per_output_token=3.0, meter=wall)
    run(store, "m2", n=3, ttft_s=0.6, j_per_output_token=2.0, meter=wall)
    run(store, "m3", n=3, ttft_s=0.1, j_per_output_token=0.1, meter={"klass": "E"})
    run(store, "m4", n=3, ttft_s=0.7, j_per_output_token=2.0, meter={"klass": None})
    found = fronted(store, "ttft_s", "j_per_token")
    one = arms(found)["pi m1"]
    assert one["numbers"][1]["value"] == pytest.approx(1.01)
    assert flags(one) == ["other_meter", "part_runs"]
    assert [note.partition(":")[0] for note in found["notes"]] == ["unlike_meters"]
    bounded = fronted(store, "ttft_s", "model_bytes", where="j_per_token<9")
    assert [note.partition(":")[0] for note in bounded["notes"]] == ["unlike_meters"]
    assert [(arm["name"].split()[1], flags(arm)) for arm in found["left_out"]] == [("m3", ["class_e"])]
    assert flags(arms(found)["pi m4"]) == ["gain_unknown"]


def test_the_gain_of_one_meter_does_not_blur_what_it_ranks(store: Store) -> None:
    for model, joules in (("m1", 1.0), ("m2", 1.05)):
        run(store, model, n=5, ttft_s=0.5, j_per_output_token=joules)
    found = arms(fronted(store, "ttft_s", "j_per_output_token"))
    number = found["pi m1"]["numbers"][1]
    assert number["hi"] / number["lo"] > 1.08  # class B: within 5 %
    run(store, "m3", device="desk", n=5, ttft_s=0.5, j_per_output_token=1.05)
    apart = arms(fronted(store, "ttft_s", "j_per_output_token", select="model=m1,model=m3"))
    same = arms(fronted(store, "ttft_s", "j_per_output_token", select="model=m1,model=m2"))
    assert same["pi m2"]["p_front"] < apart["desk m3"]["p_front"]


def test_a_run_alone_has_no_probability_unless_it_tells_its_own_u(store: Store) -> None:
    run(store, ttft_s=0.5, j_per_output_token=1.0)
    run(store, "m2", n=2, ttft_s=0.5, j_per_output_token=2.0)
    run(store, workload="hellaswag", right=60)
    both = arms(fronted(store, "ttft_s", "j_per_output_token"))
    found, other = both["pi m1"], both["pi m2"]
    assert (other["dominated_by"], other["p_dominated"]) == (found["name"], None)
    assert (found["p_front"], found["numbers"][0]["lo"]) == (None, None)
    assert flags(found) == ["one_run", "no_spread"]
    run(store, "m3", j_per_output_token=1.02)
    run(store, "m3", workload="hellaswag", right=40)
    u = 2 * 0.05 / 3**0.5  # that of the class alone: what is left of its own is nothing
    run(store, "m4", workload="long", j_per_output_token=1.0, meter={"u_k2": u})
    run(store, "m5", workload="long", j_per_output_token=1.02, meter={"u_k2": 1.02 * u})
    sure = arms(fronted(store, "j_per_output_token@long", "model_bytes"))
    assert [sure[name]["p_front"] for name in ("pi m4", "pi m5")] == [1.0, 0.0]
    told = fronted(store, "j_per_output_token", "accuracy")
    assert told["arms"][0]["p_front"] == 1.0
    assert flags(told["arms"][0]) == ["one_run"]


def test_invalid_and_imported_runs_are_left_out_unless_asked_for(store: Store) -> None:
    run(store, n=2, ttft_s=0.5, decode_tps=10.0)
    folder = open_run(store)
    about = manifest_of(folder.run_id) | {"validity": "invalid", "workload": {"name": "quick", "sha256": "quick"}}
    numbers = [measure("ttft_s", 0.1), measure("decode_tps", 99.0)]
    store.commit(folder, RunRecord(folder.run_id, about, measures=numbers))
    store.ingest(folder.run_id)
    assert len(fronted(store, "ttft_s", "decode_tps")["arms"]) == 1
    assert fronted(store, "ttft_s", "decode_tps", select="validity=invalid")["arms"][0]["numbers"][0]["value"] == 0.1


def test_runs_that_lack_one_axis_of_their_workload_are_told(store: Store) -> None:
    run(store, n=3, ttft_s=0.5, decode_tps=10.0)
    run(store, n=1, ttft_s=9.0)
    found = fronted(store, "ttft_s", "decode_tps")["arms"][0]
    assert len(found["numbers"][0]["runs"]) == 3
    assert found["flags"] == ["part_runs: 1 runs lack one of the axes of their workload"]


def test_a_condition_may_be_about_an_axis_or_about_more(store: Store) -> None:
    for model, ttft_s in (("m1", 0.5), ("m2", 0.2)):
        run(store, model, n=3, ttft_s=ttft_s, decode_tps=10 * ttft_s, peak_rss_bytes=1e9 / ttft_s)
    run(store, "m3", n=3, ttft_s=0.1, decode_tps=9.0)
    found = fronted(store, "ttft_s", "decode_tps", where="memory_bytes<4GB and ttft_s@quick<1")
    assert [axis["name"] for axis in found["axes"]] == ["ttft_s", "decode_tps", "peak_rss_bytes", "ttft_s"]
    told = arms(found)
    assert {name: (arm["meets"], arm["p_meets"], arm["on_front"]) for name, arm in told.items()} == {
        "pi m1": (True, 1.0, True), "pi m2": (False, 0.0, False), "pi m3": (None, None, False),
    }  # fmt: skip
    assert told["pi m3"]["numbers"][2] is None
    assert [axis["name"] for axis in fronted(store, "ttft_s", "decode_tps", where="ttft_s<1")["axes"]] == [
        "ttft_s", "decode_tps",
    ]  # fmt: skip
    nobody = fronted(store, "ttft_s", "decode_tps", where="ttft_s<1ms")
    assert nobody["hypervolume"]["value"] is None


def test_what_cannot_be_drawn_is_said_in_a_line(store: Store) -> None:
    with pytest.raises(UserError, match="every run: no run has one of these numbers"):
        fronted(store, "ttft_s", "accuracy")
    run(store, n=2, ttft_s=0.5)
    run(store, "m2", workload="hellaswag", right=60)
    with pytest.raises(
        UserError, match="of 2 arms 1 have ttft_s@quick/server, 1 have accuracy@hellaswag/server"
    ) as why:
        fronted(store, "ttft_s", "accuracy")
    assert "--inherit" in (why.value.hint or "")
    with pytest.raises(UnknownName, match="unknown axis 'acuracy'; did you mean accuracy"):
        fronted(store, "ttft_s", "acuracy")
    with pytest.raises(UserError, match="given twice"):
        fronted(store, "ttft", "ttft_s")
    with pytest.raises(UserError, match="no run of the selection has load_s"):
        fronted(store, "ttft_s", "load_s")
    with pytest.raises(UserError, match="over 5 axes"):
        fronted(store, "ttft_s", "load_s", "accuracy", "wall_s", "energy_j")


def test_the_command_prints_tables_and_json(store: Store) -> None:
    hostile = "m\x1b[31m|<b>"
    run(store, n=3, ttft_s=0.5, decode_tps=10.0)
    run(store, hostile, n=3, ttft_s=0.8, decode_tps=9.0)
    run(store, "m3", n=1, ttft_s=0.8)
    asked = ["pareto", "--x", "ttft_s", "--y", "decode_tps", "--z", "model_bytes", "--data", str(store.root)]
    found = CliRunner().invoke(app, [*asked, "--json"])
    assert problems(NAMED["pareto"], json.loads(found.stdout)) == []
    table = CliRunner().invoke(app, [*asked, "--where", "ttft_s<700ms"])
    assert table.exit_code == 0, table.output
    assert "ttft_s of quick/server · decode_tps of quick/server · model_bytes · where ttft_s < 0.7" in table.stdout
    assert "yes, 100 %" in table.stdout
    assert "left out: pi m3 llama.cpp b6543 cpu meltbench: has no decode_tps@quick/server" in table.stdout
    assert "\x1b[31m" not in table.stdout
    told = CliRunner().invoke(app, [*asked, "--markdown"]).stdout
    assert "\\|&lt;b>" in told
    assert "| front | P(front) | dominated by |" in told
    assert "no hypervolume: no_range: all arms have the same" not in told
    assert "of the box from ttft_s" in told
    both = CliRunner().invoke(app, [*asked, "--markdown", "--json"])
    assert isinstance(both.exception, UserError)


def test_a_device_that_nobody_has_is_named_with_the_nearest(tmp_path: Path) -> None:
    store = store_at(tmp_path)
    run(store, ttft_s=0.5, decode_tps=10.0)
    with opened(store) as connection, pytest.raises(UnknownName, match=r"unknown device 'pie'; did you mean pi\?"):
        pareto(connection, Selection.parse("device=pie"), ["ttft_s", "decode_tps"])
