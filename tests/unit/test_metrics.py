"""The figures of results are told of in one place, and every one of them is there."""

from __future__ import annotations

from meltbench.analysis.axes import AXES
from meltbench.analysis.metrics import METRICS, unit_of
from meltbench.contrasts import KNOWN
from meltbench.store.views import RESULTS, RESULTS_OF


def test_every_figure_of_results_is_a_metric_and_the_other_way_round() -> None:
    columns = {name for name, _ in RESULTS.columns}
    assert {*RESULTS_OF} <= {*METRICS} <= columns
    assert {*KNOWN} <= {*METRICS}


def test_an_axis_is_what_has_a_better_way() -> None:
    assert {*METRICS} - {*AXES} == {"start_temp_c"}
    assert all((axis.better > 0) == (METRICS[name].better == "higher") for name, axis in AXES.items())
    assert {name for name, axis in AXES.items() if axis.better > 0} == {
        *("decode_tps", "prefill_tps", "output_tps", "throttle_retention", "accuracy", "ipw_per_w", "ipj_per_j")
    }


def test_what_a_meter_is_in_scatters_by_its_gain() -> None:
    """Energies and powers grow with the gain, what is divided by one falls: by the units they have."""
    signs = {"J": 1, "W": 1, "1/J": -1, "1/W": -1}
    assert {name: axis.gain for name, axis in AXES.items()} == {
        name: signs.get(axis.unit, 0) for name, axis in AXES.items()
    }


def test_a_name_says_the_unit_that_its_metric_has() -> None:
    for name, metric in METRICS.items():
        told = unit_of(f"p99_{name}")  # a column that is no metric, by the end of its name
        assert told in ("", metric.unit), name
