"""Records of calibrations: sealed, kept, found again for the same device and system, and for no other."""

from __future__ import annotations

import json
from dataclasses import asdict, replace
from pathlib import Path

import pytest
from gauge_kit import streams, windows
from journalmaker import event, journal, readings, stream
from made_gauge import Dialect

from meltbench.calibration import record
from meltbench.calibration.job import CHARGE_S, QUICK, Design, compose_alone, compose_steps
from meltbench.errors import StoreError, UserError
from meltbench.host import Hosted
from meltbench.probe.journal import parse_journal
from meltbench.store import open_store, verifying
from meltbench.store.folder import RUN_ID
from meltbench.targets.facts import parse
from meltbench.targets.profile import Profile, Source

SPAN = windows(20, 20)
PHONE = Profile("a phone", "local", source=(Source("gauge", "power_supply", 97.0), Source("heat", "thermal", 197.0)))
FACTS = replace(parse({}), identity="00aa11bb22cc33dd", os="Android 14 (UQ1A.1)", kernel="5.10.1")


def evidence(dialect: Dialect, *, alone: bool = False) -> bytes:
    """The journal that a probe would have written of that phone."""
    spans = {span.name: span for step in SPAN.steps for span in step}
    names = {"idle_0": SPAN.steps[0].before, "load_0": SPAN.steps[0].load, "idle_1": SPAN.steps[0].after}
    names |= {"load_1": SPAN.steps[1].load, "idle_2": SPAN.steps[1].after}
    assert len(spans) == 4
    frames = [event("begin", probe="1+abc", boot_id="b", time_namespace=1)]
    for one in streams(dialect, SPAN):
        r = one.readings
        rows = zip(r.t0_ns.tolist(), r.t1_ns.tolist(), r.err.tolist(), r.raw, strict=True)
        frames += [stream(one.number, "gauge", one.path), readings(one.number, rows)]
    for name, span in names.items():
        frames.append(event("step", span.t0_ns, name=name, state="start"))
        frames.append(event("step", span.t1_ns, name=name, state="end", result="ok"))
    for n in range(5):
        number, loops = 100 + n, 1000 if alone else 970
        t0 = (200 + 10 * n) * 10**9
        frames.append(event("step", t0, name=f"same_{n}", state="start"))
        frames.append(stream(number, f"same_{n}", "", kind="out"))
        frames.append(readings(number, [(t0, t0, 0, b"%d loops 2 threads 1000000000 ns\n" % (loops + n % 2))]))
        frames.append(event("step", t0 + 9 * 10**9, name=f"same_{n}", state="end", result="ok"))
    return journal(*frames, event("end", result="done", reason=""))


def ticket(profile: Profile = PHONE) -> dict[str, object]:
    return {
        "made_at": "2026-11-21T10:00:00Z",
        "device": {"name": "phone", "identity": FACTS.identity, "sha256": "0" * 64, "board": None},
        "system": record.system(FACTS),
        "versions": {"meltbench": "0"},
        "design": asdict(Design()),
        "sources": [asdict(one) for one in profile.source],
        "max_step_w": 15.0,
        "conditions": FACTS.conditions(),
    }


def made(dialect: Dialect = Dialect(), profile: Profile = PHONE) -> dict[str, object]:  # noqa: B008
    alone = parse_journal(evidence(dialect, alone=True))
    return record.made(ticket(profile), parse_journal(evidence(dialect)), Hosted(), alone)


def save(tmp_path: Path, **more: object) -> record.Kept:
    (tmp_path / "evidence").mkdir()
    (tmp_path / "evidence" / "journal").write_bytes(evidence(Dialect()))
    return record.save(open_store(tmp_path / "data"), made() | more, tmp_path / "evidence")


def test_a_record_holds_what_a_run_needs_and_is_the_same_when_it_is_made_again() -> None:
    found = made(Dialect("mA", 1, noise_a=0.0))
    (gauge,) = found["gauges"]
    assert gauge["options"]["current_unit"] == "mA"
    assert gauge["options"]["discharge_sign"] == 1
    assert gauge["place"] == {}
    assert found["outcome"] == "done"
    assert found["windows"] == {"steps": 2, "same": 5, "charge": False}
    assert found["observer"]["share"] == pytest.approx(0.03, abs=0.001)
    assert [one["source"] for one in found["sources_seen"]] == ["gauge", "heat"]
    assert {one["series"]: one["seen"] for one in found["sensors"]}["battery.power"] == "yes"
    assert json.dumps(made(Dialect("mA", 1, noise_a=0.0))) == json.dumps(found)


def test_a_self_test_shows_the_units_in_force_and_judges_none() -> None:
    found = record.tested(ticket(), parse_journal(evidence(Dialect("mA", -1, noise_a=0.0))), Hosted())
    assert "gauges" not in found
    (power,) = [one for one in found["sensors"] if one["series"] == "battery.power"]
    assert power["load"] == pytest.approx(3.4e-3, rel=0.02)  # as the profile's uA have it


def test_a_record_is_kept_with_its_journal_and_laid_over_the_profile(tmp_path: Path) -> None:
    kept = save(tmp_path)
    store = open_store(tmp_path / "data")
    assert RUN_ID.fullmatch(kept.id)
    assert kept.path.parent == store.root / "calibrations" / FACTS.identity
    assert kept.path.with_suffix(".journal").read_bytes() == evidence(Dialect())
    assert record.kept(store, FACTS.identity) == [kept] == record.of_device(store, "phone")
    assert record.of_device(store, "another") == []
    profile, notes = record.overlaid(PHONE, FACTS, [kept])
    assert notes == []
    gauge, heat = profile.source
    assert gauge.options["calibration"] == kept.id
    assert gauge.options["current_unit"] == "uA"
    assert heat == PHONE.source[1]


def test_the_newest_record_that_could_trust_the_gauge_counts(tmp_path: Path) -> None:
    first = save(tmp_path)
    later = replace(first, id="20991231T000000Z-000000")
    bad = replace(first, id="20991231T000001Z-000000", record=first.record | {"gauges": [
        first.record["gauges"][0] | {"refused": "plugged: a cable", "options": None}]})  # fmt: skip
    profile, _ = record.overlaid(PHONE, FACTS, [first, later, bad])
    assert profile.source[0].options["calibration"] == later.id


@pytest.mark.parametrize("change", [{"os": "Android 15 (AP3A.2)"}, {"kernel": "5.10.2"}, {"os": None}])
def test_a_calibration_under_another_system_is_not_used_and_that_is_told(tmp_path: Path, change: dict) -> None:
    kept = save(tmp_path)
    profile, notes = record.overlaid(PHONE, replace(FACTS, **change), [kept])
    assert profile == PHONE
    assert notes == [f"calibration {kept.id} of gauge was made under Android 14 (UQ1A.1) 5.10.1: not used"]


def test_a_calibration_counts_for_the_gauge_it_was_made_on(tmp_path: Path) -> None:
    kept = save(tmp_path)
    for options, used in (({"supply": "bms"}, False), ({"current_unit": "A", "scale": 3.0}, True)):
        other = replace(PHONE, source=(replace(PHONE.source[0], options=options),))
        profile, notes = record.overlaid(other, FACTS, [kept])
        assert (profile.source[0].options.get("calibration") == kept.id) == used
        assert notes == []
    assert record.kept(open_store(tmp_path / "data"), "ffffffffffffffff") == []


def test_a_record_that_was_changed_is_refused(tmp_path: Path) -> None:
    kept = save(tmp_path)
    kept.path.write_text(kept.path.read_text().replace('"uA"', '"mA"'))
    with pytest.raises(StoreError, match="damaged"):
        record.kept(open_store(tmp_path / "data"), FACTS.identity)
    with pytest.raises(StoreError):
        record.kept(open_store(tmp_path / "data"), "../../etc")


def test_verify_looks_at_records_and_their_evidence(tmp_path: Path) -> None:
    kept, store = save(tmp_path), open_store(tmp_path / "data")
    assert verifying.verify(store) == []
    journal = kept.path.with_suffix(".journal")
    journal.write_bytes(journal.read_bytes()[:-1] + b"x")
    (found,) = verifying.verify(store)
    assert (found.run_id, found.problem) == (None, "changed")
    assert found.file == f"calibrations/{FACTS.identity}/{kept.id}.journal"
    journal.unlink()
    assert [one.problem for one in verifying.verify(store)] == ["missing"]
    kept.path.write_text(kept.path.read_text() + " ")
    assert [one.problem for one in verifying.verify(store)] == ["unreadable"]


def test_the_job_burns_by_the_probe_between_idle_windows() -> None:
    design = Design(idle_s=60, load_s=60, steps=2, charge_s=CHARGE_S)
    lines = compose_steps(design, "cal-1", PHONE, FACTS, None, "/data/local/tmp/meltprobe").lines
    steps = [line.split()[1:3] for line in lines if line.startswith("step")]
    same = [["exec", f"same_{n}"] for n in range(7)]
    pairs = [["idle", "idle_0"], ["exec", "load_0"], ["idle", "idle_1"], ["exec", "load_1"], ["idle", "idle_2"]]
    assert steps == [*pairs, *same, ["exec", "charge_0"]]
    assert "step exec charge_0 620000 -- /data/local/tmp/meltprobe burn 0 600000" in lines
    assert any(line.startswith("channel gauge file /sys/class/power_supply/*/current_now") for line in lines)
    bare = compose_alone(QUICK, "cal-2", "/p").lines
    assert not any(line.startswith("channel") for line in bare)
    assert sum(line.startswith("step exec") for line in bare) == QUICK.same
    assert design.seconds == 3 * 60 + 2 * 60 + 7 * 15 + 600


@pytest.mark.parametrize("wrong", [{"idle_s": 0.5}, {"load_s": 4000.0}, {"steps": 0}, {"steps": 101}])
def test_windows_that_make_no_sense_are_refused(wrong: dict) -> None:
    with pytest.raises(UserError, match="out of range"):
        Design(**wrong)
