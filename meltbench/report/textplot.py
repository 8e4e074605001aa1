"""Traces as text: one panel a signal, seconds of the run below, upright lines where its phases begin and end."""

from __future__ import annotations

from typing import TYPE_CHECKING

from meltbench.report.units import quantity
from meltbench.targets import printable

if TYPE_CHECKING:
    from meltbench.report.traces import Trace, Traces

MIN_WIDTH, MAX_WIDTH = 40, 120
_HEIGHT = 6
_LABELS = 14  # characters at the right of a panel for its scale
_SMALLEST = 1e-6  # of a scale: below it, labels cannot be told apart
_LARGEST = 1e7  # longer labels would leave no room for the plot
# The frame that uniplot draws, and the plus of our own titles, for a terminal that has ASCII alone.
_ASCII = str.maketrans("┌┐└┘─│·°…", "++++-|-'~")
_MARKED = ("load", "run", "idle_after")


def text_plot(traces: Traces, width: int, *, ascii_only: bool = False) -> str:
    """The traces as lines of at most ``width`` characters (held between 40 and 120); no line ends in a space.

    A signal without data is one line with the reason. ``ascii_only`` for an output that cannot show blocks.
    """
    width = max(MIN_WIDTH, min(width, MAX_WIDTH))
    panels = [_panel(trace, traces, width, ascii_only=ascii_only) for trace in traces.signals]
    if any(trace.t_s for trace in traces.signals):
        panels.append(_legend(traces))
    lines = "\n".join(panels).split("\n")
    text = "\n".join(_cut(line.rstrip(), width) for line in lines)
    return text.translate(_ASCII).encode("ascii", "replace").decode() if ascii_only else text


def fits(encoding: str | None) -> bool:
    """Whether an output of this encoding can show the blocks and frames of a plot."""
    try:
        "▞█┌─│°·".encode(encoding or "ascii")
    except (UnicodeEncodeError, LookupError):
        return False
    return True


def _cut(line: str, width: int) -> str:
    return line if len(line) <= width else f"{line[: width - 1]}…"


def _panel(trace: Trace, traces: Traces, width: int, *, ascii_only: bool) -> str:
    known = [(t, v) for t, v in zip(trace.t_s, trace.mean, strict=True) if v is not None]
    if not known:
        return f"{trace.name}: {printable(trace.reason or 'no reading')}"
    from uniplot import plot_to_string

    values = [v for _, v in known]
    if max(map(abs, values)) >= _LARGEST:
        return f"{trace.name}: {max(values, key=abs):.3g} {trace.unit} of {printable(trace.of)} is beyond any scale"
    # A plot that starts at zero shows how much; a temperature is not more for being counted from zero.
    low = min(values) if trace.unit == "°C" else 0.0
    high = max(values)
    margin = max((high - low) * 0.05, abs(high) * 0.05, _SMALLEST)
    body = plot_to_string(
        xs=list(trace.t_s),
        ys=[float("nan") if v is None else v for v in trace.mean],
        lines=True,
        width=width - _LABELS,
        line_length_hard_cap=width,
        height=_HEIGHT,
        x_min=0.0,
        x_max=max(traces.seconds, _SMALLEST),
        y_min=low - (margin if trace.unit == "°C" else 0),
        y_max=high + margin,
        x_unit=" s",
        x_gridlines=[at for name, at, _ in traces.phases if name in _MARKED],
        y_gridlines=[],
        character_set="ascii" if ascii_only else "block",
    )
    return f"{trace.name}, {trace.unit} · {printable(trace.of)}\n{body}"


def _legend(traces: Traces) -> str:
    marks = [f"{name} from {quantity(at, 's')}" for name, at, _ in traces.phases if name in _MARKED]
    return f"upright lines: {', '.join(marks)}" if marks else ""
