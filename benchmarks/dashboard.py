"""The dashboard and the report over 10,000 runs and 100 million samples: how long a page takes, also as runs come in.

The server is the real one and is asked as a browser asks it; of a page the time of its answer is taken, not of drawing.
"""

from __future__ import annotations

import contextlib
import importlib
import itertools
import json
import os
import re
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote
from urllib.request import Request, urlopen

from benchmarks import kept_store, made_store
from benchmarks.claims import Claim, Part, Row, Site, Unmeasurable
from benchmarks.kit import HERE

PAGE = Claim("95th percentile of the slowest page", "<=", 200.0, "ms")
TRACE = Claim("95th percentile of a run's trace", "<=", 100.0, "ms")
INGEST = Claim("pages and traces while runs come in over those without", "<=", 1.2)
MEMORY = Claim("peak memory of the dashboard", "<=", 500.0, "MB")
BYTES = Claim("report of 10,000 runs", "<=", 3.0, "MB")
OPENS = Claim("until it is drawn in a headless browser", "<=", 2.0, "s")

_JSON = "application/json"
_EVERY_S = 2.0  # a run comes in: as often as of sixty devices with two minutes a run
_FILTERS = ("", "?device=desk", "?workload=quick", "?model=qwen2.5-1.5b-q4_k_m&workload=gsm8k")
# A run that is stored again under a new name, as if a device had just ended it.
_INGEST = """
import sys, time
from dataclasses import replace
from meltbench.store import open_store, read_record
store, every_s = open_store(sys.argv[1]), float(sys.argv[2])
record = read_record(store.folder(sys.argv[3]).path)
while True:
    start = time.monotonic()
    folder = store.new_run({"plan_hash": "made"})
    store.commit(folder, replace(record, run_id=folder.run_id))
    store.ingest(folder.run_id)
    print(time.monotonic() - start, flush=True)
    time.sleep(max(every_s - (time.monotonic() - start), 0))
"""
# When the first figure stood in the page, s since it was asked for.
_SEEN = """
new MutationObserver((_, me) => {
    if (!document.querySelector(".main-svg")) return;
    me.disconnect();
    requestAnimationFrame(() => requestAnimationFrame(() => { window.drawn_s = performance.now() / 1000; }));
}).observe(document, {childList: true, subtree: true});
"""


@dataclass(frozen=True)
class Server:
    """A running dashboard."""

    pid: int
    address: str
    output: str

    def page(self, name: str, search: str) -> float:
        """Seconds until a page's answer is here."""
        from meltbench.pages.published import FILTERS

        ids = [{"type": "filter", "word": word} for word in FILTERS]
        wanted = [{"id": "page", "property": "children"}, {"id": "nav", "property": "children"}]
        given = {"at.pathname": f"/{quote(name)}", "at.search": search, "version.data": "any", "theme.data": "light"}
        asked = {
            "output": self.output,
            "outputs": [*wanted, *([{"id": one, "property": what} for one in ids] for what in ("options", "value"))],
            "inputs": [
                {"id": key.partition(".")[0], "property": key.partition(".")[2], "value": value}
                for key, value in given.items()
            ],
            "changedPropIds": ["at.search"],
            "state": [],
        }
        body = json.dumps(asked).encode()
        told, seconds = _timed(Request(f"{self.address}/_dash-update-component", body, {"Content-Type": _JSON}))
        if b'class": "trouble' in told or b'"className":"trouble' in told:
            raise RuntimeError(f"the page {name}{search} has trouble: {told[:300].decode()}")
        return seconds

    def trace(self, run_id: str) -> float:
        """Seconds until the points of a run's trace are here."""
        told, seconds = _timed(Request(f"{self.address}/export/run/{_trace_panel()}.csv?run={run_id}"))
        if not told.startswith(b"signal,unit,t_s"):
            raise RuntimeError(f"no trace of {run_id}: {told[:300].decode()}")
        return seconds

    def peak_mb(self) -> float:
        """The largest resident set so far."""
        (line,) = (one for one in Path(f"/proc/{self.pid}/status").read_text().splitlines() if one.startswith("VmHWM"))
        return int(line.split()[1]) * 1024 / 1e6


def _timed(asked: Request) -> tuple[bytes, float]:
    start = time.perf_counter()
    with urlopen(asked, timeout=60) as answer:
        told: bytes = answer.read()
    return told, time.perf_counter() - start


def _trace_panel() -> int:
    from meltbench.pages.page import pages

    page = pages()["run"].page
    assert page is not None
    return next(number for number, panel in enumerate(page.panel) if panel.kind == "trace")


@contextlib.contextmanager
def serving(data: Path) -> Iterator[Server]:
    """A dashboard over a store, until the end of the block."""
    argv = [sys.executable, "-m", "meltbench", "dashboard", "--port", "0", "--data", str(data)]
    with subprocess.Popen(argv, cwd=HERE.parent, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            found = next((one for line in process.stdout if (one := re.search(r"http://[\d.:]+", line))), None)
            if found is None:
                raise RuntimeError("the dashboard did not start")
            with urlopen(f"{found[0]}/_dash-dependencies", timeout=60) as answer:
                outputs = [str(one["output"]) for one in json.load(answer)]
            yield Server(process.pid, found[0], next(one for one in outputs if "page.children" in one))
        finally:
            process.terminate()
            process.wait(30)


@contextlib.contextmanager
def ingesting(data: Path, run_id: str) -> Iterator[list[float]]:
    """Runs come into the store until the end of the block; then the list has how long each took, s."""
    took: list[float] = []
    argv = [sys.executable, "-c", _INGEST, str(data), str(_EVERY_S), run_id]
    with subprocess.Popen(argv, cwd=HERE.parent, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            process.stdout.readline()  # the first one is imports
            yield took
        finally:
            process.terminate()
            took += [float(line) for line in process.communicate(timeout=30)[0].split()]


@dataclass
class Times:
    """Seconds of every answer, by page; ``trace`` is one of them."""

    by_page: dict[str, list[float]]

    def p95_ms(self, name: str) -> float:
        """Interpolated as numpy does."""
        found = sorted(self.by_page[name])
        at = 0.95 * (len(found) - 1)
        low = found[int(at)]
        return 1e3 * (low + (found[min(int(at) + 1, len(found) - 1)] - low) * (at % 1))

    def middle(self, name: str) -> float:
        """Median, s."""
        return statistics.median(self.by_page[name])


def _asked(server: Server, names: Sequence[str], runs: Iterator[str], rounds: int, into: Times) -> None:
    """Every page and a trace, again and again, each under another filter or of another run."""
    filters = itertools.cycle(_FILTERS)
    for _ in range(rounds):
        search = next(filters)
        for name in names:
            run_id = next(runs)
            into.by_page[name].append(server.page(name, f"?run={run_id}" if name == "run" else search))
        into.by_page["trace"].append(server.trace(next(runs)))


def _store(site: Site) -> tuple[Path, list[str]]:
    """A store that may be written to, and runs of it all over its time."""
    data = site.folder / "data"
    if not data.exists():
        if site.quick:
            made_store.small(data, runs=30, samples=400)
        else:
            kept_store.copied(kept_store.kept(say=site.say), data)
    runs = sorted(os.listdir(data / "runs"))
    return data, runs[:: max(len(runs) // 97, 1)]


def measure(site: Site) -> Iterator[Row]:
    """Pages in turn, in blocks with and without runs that come in."""
    try:
        import dash  # noqa: F401  what the server is made of
        import waitress  # noqa: F401

        from meltbench.pages.page import pages
    except ImportError as error:
        raise Unmeasurable(f"no {error.name}: pip install 'meltbench[dashboard]'") from error
    data, some = _store(site)
    runs, names = itertools.cycle(some), [name for name, file in pages().items() if file.page is not None]
    quiet, busy, first = (Times({name: [] for name in (*names, "trace")}) for _ in range(3))
    took: list[float] = []
    blocks, rounds = (1, 1) if site.quick else (5, 8)
    with serving(data) as server:
        _asked(server, names, runs, 1, first)
        for block in range(blocks):
            site.say(f"block {block + 1} of {blocks}")
            _asked(server, names, runs, rounds, quiet)
            with ingesting(data, some[0]) as found:
                _asked(server, names, runs, rounds, busy)
            took += found
        peak_mb = server.peak_mb()
    p95 = {name: quiet.p95_ms(name) for name in names}
    slowest = max(p95, key=lambda name: p95[name])
    yield PAGE.row(p95[slowest], p95, f"the slowest is {slowest}; the first time {1e3 * first.middle(slowest):.0f} ms")
    yield TRACE.row(quiet.p95_ms("trace"), _by_pandas(data, some))
    slower = {name: busy.middle(name) / quiet.middle(name) for name in (*names, "trace")}
    worst = max(slower, key=lambda name: slower[name])
    beside = {"ms an ingest": 1e3 * statistics.median(took), "ingests": len(took)} if took else {}
    beside |= {f"{name} p95 ms": busy.p95_ms(name) for name in (slowest, "trace")}
    yield INGEST.row(slower[worst], beside, f"of medians, a run every {_EVERY_S:g} s; the worst is {worst}")
    yield MEMORY.row(peak_mb)


def _by_pandas(data: Path, runs: Sequence[str]) -> dict[str, float | str]:
    """The same trace by hand: samples read and joined by pandas, and drawn whole into a file of their own."""
    import pandas
    import plotly.express as express

    reading, drawing, sizes = [], [], []
    for run_id in runs[:5]:
        start, folder = time.perf_counter(), data / "runs" / run_id
        samples = pandas.read_parquet(folder / "samples.parquet").merge(pandas.read_parquet(folder / "series.parquet"))
        read = time.perf_counter()
        out = data.parent / "trace.html"
        express.line(samples, x="t0_ns", y="value", color="name").write_html(out)
        reading.append(read - start)
        drawing.append(time.perf_counter() - read)
        sizes.append(out.stat().st_size / 1e6)
    return {
        "ms to read it by pandas": 1e3 * statistics.median(reading),
        "ms to draw that by write_html": 1e3 * statistics.median(drawing),
        "MB of that file": statistics.median(sizes),
    }


def report(site: Site) -> Iterator[Row]:
    """One file of everything, opened from disk with the network off."""
    data, _ = _store(site)
    out = site.folder / "report.html"
    site.say("writing the report")
    start = time.perf_counter()
    argv = [sys.executable, "-m", "meltbench", "report", "--data", str(data), "--out", str(out)]
    subprocess.run(argv, cwd=HERE.parent, check=True, capture_output=True)
    seconds = time.perf_counter() - start
    one_by_one = _one_by_one(data, site.folder)
    yield BYTES.row(out.stat().st_size / 1e6, {"s to write it": seconds, **one_by_one})
    drawn = _opened(site, out)
    yield OPENS.row(statistics.median(drawn), {"fastest s": min(drawn), "slowest s": max(drawn)})


def _one_by_one(data: Path, folder: Path) -> dict[str, float | str]:
    """The figures of the same pages, each by plotly's own write_html."""
    import plotly.graph_objects as go

    from meltbench.pages.offline import chapters
    from meltbench.pages.published import Published
    from meltbench.selecting import Selection
    from meltbench.store import find_store

    store = find_store(data)
    with Published(store).snapshot().asking(Selection()) as asking:
        made = [part.drawn.figure for chapter in chapters(store, asking, []) for part in chapter.parts]
    start, size, figures = time.perf_counter(), 0, [one for one in made if one is not None]
    for figure in figures:
        path = folder / "figure.html"
        go.Figure(figure).write_html(path)
        size += path.stat().st_size
    seconds = time.perf_counter() - start
    return {"figures": len(figures), "MB by write_html": size / 1e6, "s by write_html": seconds}


def _opened(site: Site, page: Path) -> list[float]:
    """Seconds until the first figure is seen, each time in a new profile."""
    kit = _browser_kit()
    found = []
    for turn in range(1 if site.quick else 5):
        with kit.opened(site.folder / f"browser{turn}") as browser:
            browser.offline()
            browser.cdp("Page.addScriptToEvaluateOnNewDocument", source=_SEEN)
            browser.open(page.as_uri())
            found.append(float(browser.until("a figure", lambda b=browser: b.js("return window.drawn_s"))))
            if errors := browser.errors():
                raise RuntimeError(f"the report has errors: {errors[:3]}")
    return found


def _browser_kit() -> Any:
    """The browser of the tests. Raises Unmeasurable where this machine has none."""
    sys.path.insert(0, str(HERE.parent / "tests"))
    try:
        browser_kit, lab_images = map(importlib.import_module, ("browser_kit", "lab_images"))
    except ImportError as error:
        raise Unmeasurable(f"no {error.name}: pip install 'meltbench[dev]'") from error
    finally:
        sys.path.pop(0)
    if lab_images.which(lab_images.DRIVER) is None or not any(map(lab_images.which, lab_images.BROWSERS)):
        raise Unmeasurable("no chromium with its driver: make lab installs them")
    return browser_kit


PARTS = (Part(measure, (PAGE, TRACE, INGEST, MEMORY)), Part(report, (BYTES, OPENS)))
