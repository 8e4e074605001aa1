"""An accuracy of a fast host beside the cost on a slow device: inherited, bounded, flagged; parts of a cell as one."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from analysis_kit import record, stored, with_scores
from jsoncheck import NAMED, problems
from store_kit import store_at
from typer.testing import CliRunner

from meltbench.analysis import stats
from meltbench.cli.app import app
from meltbench.efficiency import efficiency, joined_accuracy
from meltbench.errors import UserError
from meltbench.questions.subset import drawn
from meltbench.records import RunRecord, Score
from meltbench.report.intelligence import intelligence_sheet, notes

DOCS = (Path(__file__).parents[2] / "docs" / "accuracy.md").read_text(encoding="utf-8")
NAMES = [f"q{n}" for n in range(200)]
SOME = sorted(drawn(NAMES, 40), key=NAMES.index)


def score(name: str, method: str = "match", flip: bool = False, at: int = 0) -> Score:
    right = (NAMES.index(name) % 5 < 3) != flip
    return Score(name, method, float(right), True, extracted="yes" if right else "no", gold="yes", requests=str(at))


def scored(run_id: str, names: list[str], *flipped: str, method: str = "match", **more: Any) -> RunRecord:
    made = record(run_id, lengths=[(64, 17)] * len(names), noise=0.01, **more)
    return with_scores(made, [score(name, method, name in flipped, at) for at, name in enumerate(names)])


def numbers(document: dict[str, Any]) -> dict[Any, Any]:
    return {(one["name"], one["energy"]): one for one in document["numbers"]}


def test_the_accuracy_is_the_hosts_and_the_cost_the_devices() -> None:
    host, device = scored("host", NAMES, seed=1), scored("dev", SOME, SOME[3], seed=2)
    (found,) = efficiency([device], joined_accuracy(host))
    told, own = numbers(found), numbers(efficiency([device])[0])
    assert told["accuracy", None]["value"] == 0.6
    assert told["mean_energy_j", "gross"] == own["mean_energy_j", "gross"]
    assert told["ipj_per_j", "gross"]["value"] == pytest.approx(0.6 / own["mean_energy_j", "gross"]["value"])
    inherited = found["inherited"]
    assert (inherited["n_shared"], inherited["changed"], inherited["gained"] + inherited["lost"]) == (40, 1, 1)
    assert inherited["bound"] == stats.at_most(1, 40)
    assert inherited["corrected"]["value"] == pytest.approx(0.6 + (inherited["gained"] - inherited["lost"]) / 40)
    assert (found["origin"], found["accuracy_runs"], found["runs"]) == ("inherited", ["host"], ["dev"])
    assert found["flags"][0] == (
        "accuracy_inherited: scored on desk by match, 200 items; of 40 items asked here too 1 have another answer "
        "(2.5%, at most 11.3%), 1 are right on one of the two alone (2.5%, at most 11.3%), "
        "so the accuracies differ by at most 11.3%"
    )
    assert [flag.partition(":")[0] for flag in found["flags"]] == ["accuracy_inherited", "one_run"]
    assert problems(NAMED["intelligence"], [found]) == []
    shown = {cells[0]: cells for cells in intelligence_sheet(found).rows}
    assert shown["accuracy"][5] == "1 flips of 40 shared items, Clopper and Pearson; host Wilson"
    assert notes(found)[0].endswith("inherited: 40 queries of 40 items in 1 run")
    width = told["ipj_per_j", "gross"]["hi"] - told["ipj_per_j", "gross"]["lo"]
    plain = numbers(efficiency([replace(device, scores=[])], joined_accuracy(host))[0])["ipj_per_j", "gross"]
    assert width > plain["hi"] - plain["lo"], "what the device may do otherwise is in the interval"


def test_items_of_the_devices_own_choice_are_flagged() -> None:
    (found,) = efficiency([scored("dev", NAMES[:40])], joined_accuracy(scored("host", NAMES)))
    assert not found["inherited"]["drawn"]
    assert any(flag.startswith("not_drawn: the 40 shared items ") for flag in found["flags"])


def test_another_workload_bounds_nothing_and_another_model_is_told() -> None:
    host = scored("host", NAMES, workload={"name": "hellaswag", "sha256": "w7"})
    (found,) = efficiency([scored("dev", SOME)], joined_accuracy(host))
    assert (found["inherited"], found["accuracy_runs"]) == (None, ["host"])
    assert problems(NAMED["intelligence"], [found]) == []
    other = replace(host, manifest=host.manifest | {"model": {"name": "huge", "sha256": "m9"}})
    (found,) = efficiency([scored("dev", SOME)], joined_accuracy(other))
    assert "other_model: the accuracy is of huge" in found["flags"]


def test_what_cannot_be_inherited_is_refused() -> None:
    host = scored("host", NAMES)
    for device, said in (
        (scored("dev", SOME, workload={"name": "study", "sha256": "w2"}), "another version of the workload"),
        (scored("dev", SOME, model={"name": "huge", "sha256": "m9"}), "another model: huge "),
        (scored("dev", SOME, method="exact"), "answers were scored by exact here and by match there"),
        (scored("dev", NAMES), "all 200 items were answered here too"),
    ):
        with pytest.raises(UserError, match=said):
            efficiency([device], joined_accuracy(host))
    unlike = scored("other", NAMES, runner={"mode": "bench"})
    with pytest.raises(UserError, match=r"not to be taken together: they differ in mode"):
        joined_accuracy(host, unlike)


def test_parts_of_a_cell_are_one_and_an_item_that_two_runs_scored_counts_once() -> None:
    whole = efficiency([scored("a", NAMES[:90])])[0]
    first, second = scored("a", NAMES[:50]), scored("b", NAMES[40:90])
    (parts,) = efficiency([first, second])
    assert numbers(parts)["accuracy", None]["value"] == pytest.approx(numbers(whole)["accuracy", None]["value"])
    assert numbers(parts)["accuracy", None]["clusters"] == parts["n_items"] == 90
    assert parts["n_queries"] == 100
    again = scored("b", NAMES[40:90], *NAMES[40:50])  # what was right in the one is wrong in the other: half a mark
    (mixed,) = efficiency([first, again])
    marks = [0.5 if 40 <= n < 50 else float(n % 5 < 3) for n in range(90)]
    assert numbers(mixed)["accuracy", None]["value"] == pytest.approx(sum(marks) / 90)
    host = joined_accuracy(scored("h1", NAMES[:120]), scored("h2", NAMES[120:]))
    assert (host.accuracy.estimate.value, host.accuracy.estimate.n) == (0.6, 200)
    (found,) = efficiency([scored("dev", SOME)], host)
    assert found["accuracy_runs"] == ["h1", "h2"]


def test_the_command_of_the_docs_inherits(tmp_path: Path) -> None:
    store = store_at(tmp_path)
    ids = {
        word: stored(
            store, lengths=[(64, 17)] * len(names), noise=0.01, scores=[score(n, at=at) for at, n in enumerate(names)]
        )
        for word, names in (("HOST_RUN", NAMES), ("DEVICE_RUN", SOME))
    }
    (command,) = re.findall(r"^    meltbench (intelligence DEVICE_RUN --accuracy HOST_RUN)$", DOCS, re.MULTILINE)
    words = [ids.get(word, word) for word in command.split()]
    done = CliRunner().invoke(app, [*words, "--data", str(tmp_path)])
    assert done.exit_code == 0, done.output
    (shown,) = re.findall(r"^    (accuracy_inherited: .*)$", DOCS, re.MULTILINE)
    sentence = re.sub(r"\d[\d.]*", "N", shown.partition(" by ")[2])
    assert sentence in re.sub(r"\d[\d.]*", "N", done.stdout), "the docs show what is printed"
    told = json.loads(CliRunner().invoke(app, [*words, "--data", str(tmp_path), "--json"]).stdout)
    assert problems(NAMED["intelligence"], told) == []
    assert told[0]["inherited"]["bound"] == pytest.approx(1 - 0.05 ** (1 / 40))
