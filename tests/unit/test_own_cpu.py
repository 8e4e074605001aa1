"""Processor seconds of several processes, one after the other."""

import pytest
from evidence_kit import SECOND, digests, phase, series

from meltbench.measure import RunInputs, measure_run
from meltbench.measure.own_cpu import Life, cpu_within

RUN = phase("run", 10, 20)


def life(t0_s, t1_s, cpu_s):
    return Life(t0_s * SECOND, t1_s * SECOND, cpu_s)


def sampled(t_s, value):
    return series("process.cpu_s", t_s, value, unit="s")


def test_whole_lives_count_by_rusage_and_those_across_an_edge_by_what_was_sampled():
    first, second, last = life(8, 12, 4.0), life(12, 18, 5.5), life(18, 24, 6.0)
    curves = [sampled([9, 11], [1.0, 3.0]), sampled([19, 21], [1.0, 3.0])]
    # 2 s of the first lie behind the edge at 10 s, 2 s of the last before the one at 20 s.
    assert cpu_within([first, second, last], digests(curves, RUN), RUN) == pytest.approx(2.0 + 5.5 + 2.0)
    assert cpu_within([second], [], RUN) == 5.5
    assert cpu_within([life(1, 9, 3.0), second], [], RUN) == 5.5


def test_a_life_across_an_edge_that_was_not_sampled_is_not_guessed():
    assert cpu_within([life(8, 12, 4.0)], digests([sampled([30, 31], [1.0, 2.0])], RUN), RUN) is None


def test_an_engine_of_several_processes_has_its_own_seconds_and_so_foreign_cores():
    lives = [life(9, 15, 6.0), life(15, 21, 6.0)]
    busy = series("cpu.busy_s", [0, 30], [0.0, 33.0], unit="s")
    curves = [sampled([10, 14], [1.0, 5.0]), sampled([16, 20], [1.0, 5.0])]
    inputs = RunInputs("grid", digests([busy, *curves], RUN), [], [RUN], mode="bench", lives=lives)
    found = {m.name: m for m in measure_run(inputs)[0]}
    assert found["cpu_s"].value == pytest.approx(10.0)
    assert found["cpu_s"].method == "2 processes, by rusage and sampled"
    assert found["foreign_cores"].value == pytest.approx(0.1)


def test_a_program_that_ends_with_its_last_answer_has_its_seconds_all_the_same():
    """Its last sample lies before the run's end, and rusage at its exit behind it."""
    curve = [sampled([9, 11, 15], [1.0, 3.0, 7.0])]
    inputs = RunInputs("generate", digests(curve, RUN), [], [RUN], mode="in-process", lives=[life(8, 21, 13.0)])
    found = {m.name: m for m in measure_run(inputs)[0]}
    assert found["cpu_s"].value == pytest.approx(12.0 - 2.0)
    assert {"inprocess_load_s", "inprocess_j_per_output_token"} <= set(found)
    assert not {"load_s", "j_per_output_token"} & set(found)
