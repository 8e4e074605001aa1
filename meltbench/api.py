"""The Python face of meltbench: measure with ``run``, read with ``Store``; both give ``Run`` objects and pandas frames.

Bad input, a device that cannot be used and a damaged store raise MeltbenchError, in one line that says what to do.
A missing number is None, or in a frame a missing value, and the frame ``measures`` has its reason; it is never 0.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, overload

from meltbench import store as folders
from meltbench.errors import Interrupted, UnknownName, UserError
from meltbench.report.progress import Lines, Quiet, to_stderr
from meltbench.spec import Spec

if TYPE_CHECKING:
    from pathlib import Path

    import duckdb
    import pandas as pd
    import plotly.graph_objects as go

    from meltbench.plan import Cell
    from meltbench.records import RunRecord
    from meltbench.watch import Watch

__all__ = ["Run", "Runs", "Store", "run"]

Setting = bool | int | float | str | None | Sequence[str | int]
Where = str | os.PathLike[str]


def run(
    model: str = Spec.model,
    *,
    device: str = Spec.device,
    runner: str = Spec.runner,
    workload: str | None = Spec.workload,
    threads: int | Sequence[int] | None = Spec.threads,
    seed: int = Spec.seed,
    reps: int = Spec.reps,
    engine: Where | None = None,
    settings: Mapping[str, Setting] | None = None,
    prepare: bool = Spec.prepare,
    rehash: bool = Spec.rehash,
    wait: bool = Spec.wait,
    steal: str | None = Spec.steal,
    unplug: str | None = Spec.unplug,
    resume: bool = Spec.resume,
    piece: int | None = Spec.piece,
    data: Where | None = None,
    progress: bool | Callable[[str], None] = False,
) -> Runs:
    """Measure a model on a device, and return the runs once they are stored: ``reps`` of them, so many
    with each of several ``threads``; with ``resume`` as many as are needed, or none.

    Every argument is the option of ``meltbench run`` of the same name; ``settings`` are its ``--set``, for example
    ``{"idle_s": 1, "points": ["pp64", "tg16"]}``, and ``prepare`` False its ``--no-prepare``. ``progress`` True writes
    lines to stderr, a function is called with each of them.

    A run that failed is stored and returned like the others: look at ``ok``. Raises MeltbenchError when no run can be
    made, and Interrupted when Ctrl-C left runs undone; what was stored until then is in the store. In another thread
    than the main one Ctrl-C is not caught, and a run goes on.
    """
    from meltbench import plan, road

    spec = Spec(
        device=device,
        model=model,
        runner=runner,
        threads=(threads,) if isinstance(threads, int) else threads if threads is None else tuple(threads),
        seed=seed,
        reps=reps,
        engine=None if engine is None else os.fspath(engine),
        knobs=tuple(sorted((key, _text(key, value)) for key, value in (settings or {}).items())),
        prepare=prepare,
        rehash=rehash,
        wait=wait,
        steal=steal,
        unplug=unplug,
        resume=resume,
        piece=piece,
    )
    if workload is not None:  # None: what the spec has without being asked
        spec = replace(spec, workload=workload)
    watch: Watch = Quiet() if progress is False else Lines(to_stderr if progress is True else progress)
    planned = plan.make(spec, watch)
    inner = folders.open_store(data)
    spared: list[Cell] = []
    records = list(road.run(planned, inner, watch, spared))
    left = len(planned.cells) - len(records) - len(spared)
    if left or any(one.manifest.get("outcome") == "stopped" for one in records):
        done = sum(one.manifest.get("outcome") != "stopped" for one in records)
        raise Interrupted(
            f"interrupted after {done} of {len(planned.cells)} runs",
            hint=f"what was stored: {', '.join(one.run_id for one in records) or 'nothing'} in {inner.root}",
        )
    return Runs(inner, [Run(inner.folder(record.run_id)) for record in records])


def _text(key: str, value: Setting) -> str:
    """A setting as one would write it after ``--set``."""
    match value:
        case None:
            return "none"
        case bool():
            return str(value).lower()
        case str() | int() | float():
            return str(value)
        case Sequence():
            return ",".join(str(part) for part in value)
    raise UserError(f"setting {key} is a {type(value).__name__}", hint="give a number, a text or a list of texts")


class Run:
    """One stored run, which never changes. Frames are read from its Parquet files when they are asked for.

    Columns that end in ``_ns`` are CLOCK_BOOTTIME of the target; beside each stands the same in seconds from the start
    of the run (``_s``). Every frame is a new one: change it as you like. A file that is not the one that was stored
    raises MeltbenchError.
    """

    def __init__(self, folder: folders.RunFolder) -> None:
        self._folder = folder
        self._whole: dict[str, Any] | None = None
        self._origin_ns: int | None = None

    @property
    def run_id(self) -> str:
        """UTC start and six hex digits."""
        return self._folder.run_id

    @property
    def path(self) -> Path:
        """The run's folder."""
        return self._folder.path

    @property
    def manifest(self) -> dict[str, Any]:
        """What was run, on what, under which conditions, how it ended: a copy. docs/json.md has the keys."""
        import copy

        from meltbench.store.manifest import of_record

        return copy.deepcopy(of_record(self._sealed()))

    def _sealed(self) -> dict[str, Any]:
        if self._whole is None:
            from meltbench.store import tables

            self._whole = tables.read_manifest(self.path)
        return self._whole

    @property
    def validity(self) -> str:
        """``valid``, ``degraded`` or ``invalid``; the frame ``reasons`` says why."""
        return str(self._sealed().get("validity"))

    @property
    def ok(self) -> bool:
        """Whether the run is done and not invalid: its numbers hold, under the conditions that ``reasons`` names."""
        return self._sealed().get("outcome") == "done" and self.validity != "invalid"

    def value(self, name: str, *, phase: str = "run", stat: str | None = None) -> float | None:
        """A measure as the console shows it (medians of rates, peaks of memory), None where it could not be measured.

        ``phase`` names a phase or a point of a grid; ``stat`` asks for another condensation, such as ``p90``. Raises
        UnknownName for a measure that this run does not have.
        """
        from meltbench.report.headline import pick

        measures = self._record().measures
        found = pick(measures, name, stat, phase)
        if found is None:
            near = [m.name for m in measures if m.phase == phase] or sorted({m.phase for m in measures})
            label = "measure" if any(m.phase == phase for m in measures) else "phase"
            of = [m.stat for m in measures if m.phase == phase and m.name == name]
            if of:
                raise UnknownName(f"stat of {name}", str(stat), of)
            raise UnknownName(label, name if label == "measure" else phase, near)
        return found.value

    @property
    def measures(self) -> pd.DataFrame:
        """Every number of the run with its unit, stat, phase, uncertainty, and the reason where there is none."""
        return self._frame("measures")

    @property
    def requests(self) -> pd.DataFrame:
        """One row a request, warm-ups included: what was observed, what the engine said of itself, its answer."""
        return self._frame("requests")

    @property
    def tokens(self) -> pd.DataFrame:
        """One row a chunk that carried tokens: when it arrived, and how many it held."""
        return self._frame("tokens")

    @property
    def phases(self) -> pd.DataFrame:
        """The spans of the run: idle windows, load, run, and prefill and decode of each request."""
        return self._frame("phases")

    @property
    def regimes(self) -> pd.DataFrame:
        """The states the device went through: idle, load, burst, throttled, recovery ..., each with its cause."""
        return self._frame("regimes")

    @property
    def scores(self) -> pd.DataFrame:
        """One row a scored item: whether its answer was right, what was read out of it, and what is right."""
        return self._frame("scores")

    @property
    def series(self) -> pd.DataFrame:
        """What was sampled: name, unit, kind, scope of each series."""
        return self._frame("series")

    @property
    def reasons(self) -> pd.DataFrame:
        """Named reasons against full validity, with what was seen and what to do."""
        return self._frame("reasons")

    @property
    def sources(self) -> pd.DataFrame:
        """Every source of readings, also one that gave nothing, and why."""
        return self._frame("sources")

    def samples(self, name: str = "*", *, max_points: int | None = None) -> pd.DataFrame:
        """The samples of one series, or of all whose names match a pattern such as ``rapl.*``, in order of time.

        Only those are read from the disk. ``regime`` is the state the device was in. With ``max_points`` each series is
        condensed to at most so many rows: mean (``value``), ``low`` and ``high`` of as many stretches of equal length,
        and the count ``n`` of each. Raises UnknownName when no series matches.
        """
        from meltbench.report.frames import samples

        return samples(self.path, self._sealed(), self._start_ns, name, max_points)

    def plot(self) -> go.Figure:
        """Power, temperature and token rate over time, phases shaded. What was not measured is a note below."""
        from meltbench.report.console import title
        from meltbench.report.figure import figure
        from meltbench.report.traces import read_traces

        record = self._record()
        return figure(read_traces(self.path, record), f"{title(record.manifest)}<br><sub>{self.run_id}</sub>")

    def _record(self) -> RunRecord:
        return folders.read_record(self.path, signals=False)

    def _frame(self, table: str) -> pd.DataFrame:
        from meltbench.report.frames import frame

        return frame(self.path, self._sealed(), table, self._start_ns)

    def _start_ns(self) -> int:
        if self._origin_ns is None:
            from meltbench.report.frames import start_ns

            self._origin_ns = start_ns(self.path, self._sealed())
        return self._origin_ns

    def __repr__(self) -> str:
        from meltbench.report.console import title

        return f"<Run {self.run_id}: {title(self.manifest)}; {self.validity}>"

    def _repr_html_(self) -> str:
        """The table of ``meltbench show`` for a notebook."""
        from meltbench.report.html import run_html

        return run_html(self._record())


class Runs(Sequence[Run]):
    """Runs in the order they were made: index it, loop over it, or take ``frame``."""

    def __init__(self, inner: folders.Store, runs: Sequence[Run]) -> None:
        self._inner, self._runs = inner, list(runs)

    def __len__(self) -> int:
        return len(self._runs)

    @overload
    def __getitem__(self, key: int) -> Run: ...
    @overload
    def __getitem__(self, key: slice) -> Runs: ...
    def __getitem__(self, key: int | slice) -> Run | Runs:
        """One run, or for a slice some of them."""
        return Runs(self._inner, self._runs[key]) if isinstance(key, slice) else self._runs[key]

    @property
    def frame(self) -> pd.DataFrame:
        """One row a run with its headline numbers: the columns of the view runs_wide of docs/store.md."""
        wanted = [one.run_id for one in self._runs]
        frame = Store(self._inner.root).runs()
        return frame[frame["run_id"].isin(wanted)].reset_index(drop=True)

    def __repr__(self) -> str:
        return f"<{len(self)} runs: {', '.join(one.run_id for one in self._runs)}>"

    def _repr_html_(self) -> str:
        """The frame, for a notebook."""
        return self.frame.to_html(index=False, notebook=True)


class Store:
    """The runs measured before, to be read: ``path``, else ``$MELTBENCH_DATA``, else ``./data``.

    Raises MeltbenchError when there is no store; ``meltbench.run`` makes one. Queries go to an index that is brought
    up to date first, in a private read-only DuckDB: new runs may be stored meanwhile, by any program.
    """

    def __init__(self, path: Where | None = None) -> None:
        self._inner = folders.find_store(path)

    @property
    def path(self) -> Path:
        """The data folder."""
        return self._inner.root

    def runs(self) -> pd.DataFrame:
        """One row a stored run with its headline numbers (view runs_wide), oldest first."""
        return self.frame("runs_wide")

    def frame(self, table: str) -> pd.DataFrame:
        """All rows of a table or view of the index: runs, requests, measures, latency, energy ... (docs/store.md).

        Samples and tokens are large, and with each Run. Raises UnknownName for a name that the index does not have.
        """
        from meltbench.store import index
        from meltbench.store.export import EXPORTABLE

        if table not in EXPORTABLE:
            hint = f"each run has its own: Store.run().{table}" if table in ("samples", "tokens") else None
            raise UnknownName("table", table, EXPORTABLE, hint=hint)
        with index.opened(self._inner) as connection:
            made: pd.DataFrame = connection.sql(f"FROM {table} ORDER BY run_id").df()
        return made

    def sql(
        self, query: str, *, params: Sequence[object] | Mapping[str, object] | None = None
    ) -> duckdb.DuckDBPyRelation:
        """A query of the index as a DuckDB relation: ``.df()``, ``.arrow()``, ``.filter(...)`` as you like.

        It sees the runs stored when it was asked, and stays usable when others are stored later. Raises UserError for
        a query that DuckDB refuses.
        """
        from meltbench.store import index

        return index.query(self._inner, query, params)

    def run(self, name: str = "last") -> Run:
        """A stored run by its id, the beginning of one, or ``last``. Raises UnknownName with the nearest ones."""
        return Run(self._inner.resolve(name, among=self._inner.stored_ids()))

    def __len__(self) -> int:
        return len(self._inner.stored_ids())

    def __iter__(self) -> Iterator[Run]:
        return (Run(self._inner.folder(run_id)) for run_id in self._inner.stored_ids())

    def __repr__(self) -> str:
        return f"<Store {self.path}: {len(self)} runs>"
