"""A meter's journal beside a target's: its stamps become the target's, within a bound that its energies carry."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from journalmaker import event, journal, readings, stream

from meltbench.errors import StoreError
from meltbench.host import Hosted, read_batches
from meltbench.measure.energy import energy, prepare
from meltbench.probe.clockmap import Batch, Clock, Exchange
from meltbench.probe.journal import Journal, parse_journal
from meltbench.readings import Source
from meltbench.records import Phase

SECOND = 1_000_000_000
SKEW_S, PPM = 0.7, 50.0
HERE, THERE = Clock("controller", 1), Clock("phone", 7)
RUN = (20.0, 50.0)  # s of the controller's clock
LOAD = (30.0, 32.0)  # a phase of 2 s at 9 W beside 1 W


def target_ns(controller_s: float) -> int:
    return round(controller_s * SECOND) + round(SKEW_S * SECOND) + round(controller_s * PPM * 1000)


def batch(at_s: float, ways_us: int = 400) -> Batch:
    rows = []
    for n in range(20):
        t0 = round((at_s + 0.01 * n) * SECOND)
        out = ways_us // 4 * 1000  # always the shorter way: an error that no choice takes out
        rows.append(Exchange(t0, target_ns((t0 + out) / SECOND), t0 + ways_us * 1000))
    return Batch(tuple(rows), HERE, THERE)


def begin(clock: Clock, boot_ns: int) -> bytes:
    return event("begin", boot_ns, boot_id=clock.boot_id, time_namespace=clock.time_namespace)


def target() -> Journal:
    return parse_journal(
        journal(begin(THERE, target_ns(RUN[0])), event("end", target_ns(RUN[1]), result="done", reason=""))
    )


def meter() -> Journal:
    """A meter of 1 W, of 9 W in the phase, read every 20 ms by the controller's clock."""
    t = np.arange(5, 65, 0.02)
    rows = []
    for n, s in enumerate(t.tolist()):
        microwatts = 9_000_000 if LOAD[0] <= s < LOAD[1] else 1_000_000
        rows.append((round(s * SECOND), round(s * SECOND) + 1000, 0, b"%d\n" % (microwatts + n % 2)))
    at = "/sys/class/hwmon/hwmon0/power1_input"
    frames = [stream(0, "meter", at), readings(0, rows), stream(1, "meter", "/sys/class/hwmon/hwmon0/name")]
    frames.append(readings(1, [(0, 0, 0, b"ina226\n")]))
    return parse_journal(journal(begin(HERE, 5 * SECOND), *frames))


def series(hosted: Hosted):
    source = Source.of("meter", "hwmon", {})
    found, seen = source.read([hosted.journal.streams[n] for n in hosted.journal.numbers("meter")])
    return hosted.placed(found, seen)


def tied(batches) -> Hosted:
    return Hosted.tied(frozenset({"meter"}), meter(), target(), batches)


def phase() -> Phase:
    return Phase("load", target_ns(LOAD[0]), target_ns(LOAD[1]))


def test_700_ms_and_50_ppm_the_energy_of_a_phase_is_right_within_its_uncertainty():
    hosted = tied([batch(18.0), batch(52.0)])
    assert hosted.conditions == []
    assert 0 < hosted.bound_s < 0.001
    (power,) = (one for one in series(hosted)[0] if one.unit == "W")
    assert power.clock_bound_s == hosted.bound_s
    edge = power.t0_ns[np.flatnonzero(power.value > 5)[0]]
    assert abs(edge - target_ns(LOAD[0])) / SECOND <= hosted.bound_s + 0.02
    found = energy(prepare(power), phase())
    assert found.value is not None
    assert found.u_k2 is not None
    gain = 2 * 0.1 / 3**0.5 * found.value
    assert abs(found.value - 18.0) < (found.u_k2**2 - gain**2) ** 0.5  # less than what is not gain


def test_without_the_map_the_phase_would_be_measured_700_ms_beside_itself():
    (power,) = (one for one in series(Hosted(meter(), frozenset({"meter"})))[0] if one.unit == "W")
    wrong = energy(prepare(power), phase()).value
    assert wrong is not None
    assert abs(wrong - 18.0) > 5


@pytest.mark.parametrize(("batches", "least_s"), [([batch(18.0)], 0.01), ([batch(52.0)], 0.01)])
def test_one_exchange_gives_a_wide_bound_and_a_reason(batches, least_s):
    hosted = tied(batches)
    assert hosted.bound_s > least_s
    ((code, why),) = hosted.conditions
    assert (code, why[:23]) == ("clock_unsynced", "meter: no clock exchang")
    (power,) = (one for one in series(hosted)[0] if one.unit == "W")
    assert abs(power.t0_ns[np.flatnonzero(power.value > 5)[0]] - target_ns(LOAD[0])) / SECOND < hosted.bound_s + 0.02


def test_trap_44_no_exchange_gives_no_samples_and_says_why():
    hosted = tied([])
    found, seen = series(hosted)
    assert found == []
    assert seen.told().status == "error"
    assert "clock_unsynced: no clock exchange with the target" in seen.told().detail
    assert hosted.conditions[0][0] == "clock_unsynced"


def test_a_run_without_sources_of_the_controller_has_no_clock_to_tie():
    hosted = Hosted.of({"sources": [{"name": "rapl"}]}, target(), None)
    assert (hosted.names, hosted.conditions) == (frozenset(), [])


def test_a_recording_that_is_gone_leaves_its_source_absent(tmp_path: Path):
    ticket = {"sources": [{"name": "meter", "host": True}]}
    hosted = Hosted.of(ticket, target(), tmp_path)
    assert hosted.names == {"meter"}
    assert hosted.conditions == []  # a source that is absent speaks for itself
    assert series(hosted)[1].told().status == "absent"


def test_exchanges_are_read_from_the_evidence_and_a_damaged_file_is_told(tmp_path: Path):
    one = batch(18.0)
    (tmp_path / "sync.json").write_text(json.dumps([one.told(), "odd"]))
    assert read_batches(tmp_path) == [one]
    (tmp_path / "sync.json").write_text("{")
    with pytest.raises(StoreError, match="is damaged"):
        read_batches(tmp_path)
