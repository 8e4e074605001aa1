"""The dashboard and the report in a real browser: over real runs, made ones, none, and ten thousand."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import pytest
from browser_kit import Browser, opened
from cli import QUICK, Bench
from many_runs import multiply
from store_kit import add_run

from benchmarks import made_store
from meltbench.store import Store, open_store

pytestmark = [pytest.mark.slow]
PAGES = ("overview", "pareto", "run", "compare", "trends", "devices", "accuracy")
LAST = "[...document.querySelectorAll('#page .says')].at(-1)?.textContent"
DRAWN = "document.querySelectorAll('#page .says, #page .trouble').length > 0"


@pytest.fixture(scope="module")
def window(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    """One browser for all of these tests; each begins with a clean log."""
    with opened(tmp_path_factory.mktemp("browser"), 1400, 1000) as browser:
        yield browser


@pytest.fixture
def browser(window: Browser) -> Browser:
    window.open("about:blank")
    window.scheme("light")
    window.forget()
    return window


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Store:
    """A made store: devices with and without energy, accuracy, invalid runs, eight nights."""
    return made_store.small(tmp_path_factory.mktemp("small") / "data", 180, 600)


@pytest.fixture(scope="module")
def many(small: Store, tmp_path_factory: pytest.TempPathFactory) -> Store:
    """Its runs more than ten thousand times in all."""
    return multiply(small, tmp_path_factory.mktemp("many") / "data", 56)


@contextmanager
def served(bench: Bench, *words: str) -> Iterator[str]:
    """A dashboard of its own process: its address. It ends by Ctrl-C, and says nothing of it."""
    process = bench.start("dashboard", "--port", "0", *words)
    assert process.stdout is not None
    line = process.stdout.readline()
    try:
        found = re.match(r"(http://\S+)  \(Ctrl-C ends it\)\n", line)
        assert found, (line, process.stderr and process.stderr.read())
        yield found[1]
    finally:
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=30)
    assert process.returncode == 0, (out, err)
    assert "Traceback" not in err


@pytest.fixture(scope="module")
def site(small: Store, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of a dashboard over the made store, for tests that change nothing of it."""
    with served(Bench(tmp_path_factory.mktemp("site")), "--data", str(small.root)) as address:
        yield address


def shown(browser: Browser, address: str) -> None:
    """Open a page and wait until its panels are drawn; none says that it cannot be."""
    browser.open(address)
    browser.until("a page", lambda: browser.js(f"return {DRAWN}"))
    browser.until(
        "charts and tables",
        lambda: browser.js(
            "return [...document.querySelectorAll('.js-plotly-plot')].every(p => p.querySelector('.main-svg'))"
            " && document.querySelectorAll('.graph').length <= document.querySelectorAll('.js-plotly-plot').length"
        ),
    )
    assert [one.text for one in browser.find(".trouble")] == []


def every_page_opens(browser: Browser, address: str, run_id: str, name: str = "") -> None:
    for page in PAGES:
        query = f"?run={run_id}" if page == "run" else ""
        shown(browser, f"{address}{page}{query}")
        assert browser.find("#page h1")
        assert browser.errors() == [], page
        if name:
            browser.shot(f"{name}-{page}")


@pytest.mark.engine
def test_every_page_opens_on_real_runs(browser: Browser, bench: Bench, default_model: Path) -> None:
    runs = [
        *bench.json("run", *QUICK, "--reps", "2"),
        *bench.json("run", *QUICK, "--threads", "1"),
        *bench.json("exec", "--set", "idle_s=0", "--", "sleep", "0.2"),
    ]
    with served(bench) as address:
        every_page_opens(browser, address, runs[0]["run_id"], "real")
        shown(browser, f"{address}run?run={runs[0]['run_id']}")
        browser.says("token rate", "#page")
        shown(browser, f"{address}pareto?x=decode_tps&y=peak_rss_bytes")
        assert browser.find(".scatterlayer .point")
        shown(browser, f"{address}overview")
        browser.says(runs[-1]["run_id"], ".ag-root")


def test_every_page_opens_on_a_made_store_in_both_themes(browser: Browser, site: str, small: Store) -> None:
    for scheme in ("light", "dark"):
        browser.scheme(scheme)
        browser.open("about:blank")
        every_page_opens(browser, site, small.stored_ids()[-1], f"made-{scheme}")
        back = browser.js("return getComputedStyle(document.body).backgroundColor")
        assert (sum(map(int, re.findall(r"\d+", back)[:3])) < 200) == (scheme == "dark")


def test_a_filter_narrows_and_stands_in_the_address(browser: Browser, site: str) -> None:
    shown(browser, site)
    before = browser.find("#page .says")[0].text
    browser.appears("#filter-device button, #filter-device [role=combobox]").click()
    browser.until("options", lambda: browser.find("[role=option], .dash-dropdown-option"))
    option = next(one for one in browser.find("[role=option], .dash-dropdown-option") if "desk" in one.text)
    option.click()
    browser.until("an address", lambda: "device=desk" in browser.driver.current_url)
    browser.until("fewer runs", lambda: browser.find("#page .says")[0].text != before)
    cells = browser.js("return [...document.querySelectorAll('.ag-cell[col-id=device]')].map(c => c.textContent)")
    assert set(cells) == {"desk"}
    # The other pages keep it, and who comes by that address sees the same.
    next(one for one in browser.find("nav a") if one.text == "Devices").click()
    browser.until("another page", lambda: browser.driver.current_url.endswith("/devices?device=desk"))
    browser.says("desk", ".ag-cell")
    shown(browser, browser.driver.current_url)
    browser.says("desk", "#filter-device")
    cells = browser.js("return [...document.querySelectorAll('.ag-cell[col-id=device]')].map(c => c.textContent)")
    assert set(cells) == {"desk"}
    assert browser.errors() == []


def test_a_choice_stands_in_the_address_and_comes_back(browser: Browser, site: str) -> None:
    shown(browser, f"{site}overview?metric=ttft_s&device=desk")
    browser.says("Median TTFT", "#page")
    browser.says("TTFT", "#choice-metric")
    assert "metric=ttft_s" in browser.driver.current_url
    shown(browser, f"{site}pareto?x=ttft_s&y=peak_rss_bytes&where=ttft_s%3C0.5")
    browser.says("TTFT", ".xtitle")
    browser.says("peak RSS", ".ytitle")
    values = [one.get_attribute("value") for one in browser.find(".choice input")]
    assert values == ["ttft_s", "peak_rss_bytes", "", "ttft_s<0.5"]
    field = browser.find(".choice input")[3]
    field.send_keys("\ue009a\ue000", "ttft_s<nonsense\n")  # Ctrl-A, then over it
    browser.until("the address", lambda: "nonsense" in browser.driver.current_url)
    browser.appears(".trouble")  # which says what is wrong with it, and the page stays
    assert browser.errors() == []


def test_a_click_on_a_point_of_the_front_opens_its_run(browser: Browser, site: str) -> None:
    from selenium.webdriver.common.action_chains import ActionChains

    shown(browser, f"{site}pareto?x=ttft_s&y=j_per_output_token&workload=quick")
    points = browser.until("points", lambda: browser.find(".scatterlayer .point"))
    ActionChains(browser.driver).move_to_element(points[0]).click().perform()
    browser.until("the run", lambda: "/run?run=" in browser.driver.current_url)
    assert "workload=quick" in browser.driver.current_url
    run_id = re.search(r"run=([0-9TZ]+-[0-9a-f]{6})", browser.driver.current_url)
    assert run_id
    browser.says(f"Run {run_id[1]}", "#page")
    browser.until("traces", lambda: browser.find("#page .js-plotly-plot .main-svg"))
    drawn = "document.querySelector('.js-plotly-plot').layout"
    assert browser.js(f"return {drawn}.shapes.length") >= 4  # phases are shaded
    names = browser.js(f"return {drawn}.annotations.map(a => a.text)")
    assert {"idle_before", "load", "run", "idle_after"} <= set(names)
    titles = [one.text for one in browser.find(".js-plotly-plot .infolayer text")]
    for signal_ in ("power", "temperature", "token rate", "frequency", "memory"):
        assert any(signal_ in title for title in titles), titles
    assert browser.errors() == []


def test_every_chart_can_be_taken_away(browser: Browser, site: str) -> None:
    shown(browser, f"{site}overview?device=desk")
    card = browser.find(".card")[0]
    card.find_element("css selector", "footer button").click()
    browser.until("a picture", lambda: list(browser.downloads.glob("*.png")))
    picture = next(browser.downloads.glob("*.png"))
    assert picture.read_bytes().startswith(b"\x89PNG")
    links = {one.text: one.get_attribute("href") for one in card.find_elements("css selector", "footer a")}
    assert set(links) == {"Table", "CSV", "SQL"}
    told = {name: browser.js("return fetch(arguments[0]).then(r => r.text())", link) for name, link in links.items()}
    head, *lines = told["CSV"].splitlines()
    assert {"device", "model", "run_id", "decode_tps"} <= set(head.split(","))
    assert {line.partition(",")[0] for line in lines} == {"desk"}
    assert "device = 'desk'" in told["SQL"]
    browser.open(links["Table"] or "")
    rows = len(browser.find("tbody tr"))
    assert rows == len(lines) > 10
    assert browser.errors() == []


def test_keyboard_and_screen_reader(browser: Browser, site: str) -> None:
    shown(browser, f"{site}overview")
    browser.keys("\ue004")  # Tab
    assert browser.js("return document.activeElement.className") == "skip"
    browser.keys("\ue007")  # Enter
    assert browser.js("return document.activeElement.id") == "page"
    assert browser.js("return document.documentElement.lang") == "en"
    for page in PAGES[:2]:
        shown(browser, f"{site}{page}")
        unnamed = browser.js(
            "return [...document.querySelectorAll('#page .graph, #page section, button, a, nav, label')].filter(e =>"
            " !(e.getAttribute('aria-label') || e.getAttribute('aria-labelledby') || e.textContent.trim()"
            " || e.closest('.js-plotly-plot, .ag-root-wrapper'))).map(e => e.outerHTML.slice(0, 120))"
        )
        assert unnamed == []
        assert all(one.get_attribute("role") == "img" for one in browser.find("#page .graph"))
        levels = [int(one.tag_name[1]) for one in browser.find("#page h1, #page h2, #page h3")]
        assert levels[0] == 1
        assert set(levels[1:]) == {2}
    browser.find("#toggle")[0].send_keys("\ue007")
    browser.until("the other theme", lambda: browser.js("return document.documentElement.dataset.theme") == "dark")
    shown(browser, f"{site}overview")  # which is remembered
    assert browser.js("return document.documentElement.dataset.theme") == "dark"
    browser.find("#toggle")[0].send_keys("\ue007")
    browser.until("light again", lambda: browser.js("return document.documentElement.dataset.theme") == "light")
    assert browser.errors() == []


def test_a_narrow_window_has_no_sideways_scroll(browser: Browser, site: str) -> None:
    try:
        for width in (390, 1400):
            browser.size(width, 900)
            shown(browser, f"{site}overview")
            assert browser.js("return document.documentElement.scrollWidth") <= width
    finally:
        browser.size(1400, 1000)


def test_nothing_but_this_machine_is_asked(browser: Browser, site: str, small: Store) -> None:
    every_page_opens(browser, site, small.stored_ids()[0])
    asked = browser.requested()
    assert asked
    assert [url for url in asked if not url.startswith(site)] == []


def test_an_empty_store_and_the_first_runs(browser: Browser, tmp_path: Path, bench: Bench) -> None:
    store = open_store(bench.data)
    store.check_writable()
    with served(bench) as address:
        for page in PAGES:
            browser.open(f"{address}{page}")
            browser.says("There is no run in this store yet", ".trouble")
        add_run(store, 1)
        store.ingest(store.stored_ids()[0])
        browser.open(address)
        browser.says(store.stored_ids()[0], ".ag-root")
        for page in PAGES:
            shown(browser, f"{address}{page}")
        # The page that is open shows the next one by itself.
        shown(browser, f"{address}overview")
        added = add_run(store, 2).run_id
        store.ingest(added)
        browser.says(added, ".ag-root")
        assert browser.errors() == []


def test_hostile_names_stay_text(browser: Browser, tmp_path: Path, bench: Bench) -> None:
    store = made_store.small(bench.data, 40, 300, hostile=True)
    with served(bench) as address:
        every_page_opens(browser, address, store.stored_ids()[-1], "hostile")
        browser.open("about:blank")
        browser.forget()  # a page that is left asks a last time, and nobody answers any more
    bench.run("report", "--out", "report.html", f"run={store.stored_ids()[-1]}")
    browser.open(f"file://{bench.home}/report.html")
    browser.until("the report", lambda: browser.js("return document.documentElement.dataset.ready") == "yes")
    assert browser.js("return document.querySelectorAll('#page script, #page img, #page iframe').length") == 0
    assert browser.errors() == []


def test_a_broken_page_says_its_line_and_the_others_work(browser: Browser, small: Store, bench: Bench) -> None:
    folder = bench.home / "dashboards"
    folder.mkdir()
    (folder / "broken.toml").write_text(
        'title = "Broken"\n\n[[panel]]\ntitle = "x"\nkind = "tabel"\nsql = "SELECT 1"\n'
    )
    own, bad = (
        f'[[panel]]\ntitle = "{title}"\nkind = "table"\nsql = """\n{sql}\n"""\n'
        for title, sql in (
            ("Mine", "SELECT device, count(*) AS runs\nFROM selected GROUP BY 1"),
            ("Bad", "SELECT devise\nFROM selected"),
        )
    )
    (folder / "mine.toml").write_text(f'title = "My own"\nplace = 0\n\n{own}\n{bad}')
    with served(bench, "--data", str(small.root)) as address:
        browser.open(f"{address}broken")
        browser.says("'table'", ".trouble")  # the nearest that there is
        browser.open(address)  # the user's own page has the first place
        browser.says("My own", "#page h1")
        browser.says(f"{folder}/mine.toml, line 16:", ".trouble")
        browser.says("desk", ".ag-cell")
        shown(browser, f"{address}overview")
        assert browser.errors() == []


def test_every_page_opens_on_ten_thousand_runs(browser: Browser, many: Store, bench: Bench) -> None:
    ids = many.stored_ids()
    assert len(ids) > 10_000
    with served(bench, "--data", str(many.root)) as address:
        every_page_opens(browser, address, ids[-1], "many")
        shown(browser, f"{address}trends?device=desk&metric=ttft_s")
        shown(browser, f"{address}overview?device=orin-nano&workload=quick")
        assert browser.errors() == []


def test_a_report_is_complete_without_a_network(browser: Browser, small: Store, many: Store, bench: Bench) -> None:
    run_id = small.stored_ids()[-1]
    done = bench.run(
        "report", "--data", str(small.root), "--out", "r.html", f"run={run_id}", f"run={small.stored_ids()[3]}"
    )
    assert done.returncode == 0, done.stderr
    whole = bench.run("report", "--data", str(many.root), "--out", "many.html", "--json", timeout=300)
    assert whole.returncode == 0, whole.stderr
    assert json.loads(whole.stdout)["bytes"] <= 3_000_000
    browser.offline()
    try:
        for name in ("r", "many"):
            browser.open(f"file://{bench.home}/{name}.html")
            browser.until("the report", lambda: browser.js("return document.documentElement.dataset.ready") == "yes")
            for place in browser.find("[data-panel]"):
                browser.js("arguments[0].scrollIntoView()", place)
                browser.until("a panel", lambda place=place: browser.js("return arguments[0].children.length", place))
            assert browser.find(".chapter h2")
            assert browser.errors() == []
            assert [url for url in browser.requested() if not url.startswith(("file:", "about:"))] == []
            browser.shot(f"report-{name}")
    finally:
        browser.offline(False)
    said = " ".join(one.text for one in browser.find(".chapter h2"))
    assert {"Overview", "Trends", "Devices"} <= set(said.split())


_INGEST = """
import sys
sys.path[:0] = [sys.argv[1]]
from store_kit import add_run
from meltbench.store import open_store
store = open_store(sys.argv[2])
for seed in range(int(sys.argv[3]), 10_000):
    run_id = add_run(store, seed).run_id
    store.ingest(run_id)
    print(run_id, flush=True)
"""


def ingesting(data: Path, seed: int) -> subprocess.Popen[str]:
    """A process that brings in runs without end, and says each that is in."""
    argv = [sys.executable, "-c", _INGEST, str(Path(__file__).parent.parent), str(data), str(seed)]
    return subprocess.Popen(argv, stdout=subprocess.PIPE, text=True)


def said_by(process: subprocess.Popen[str], n: int) -> Sequence[str]:
    assert process.stdout is not None
    return [process.stdout.readline().strip() for _ in range(n)]


def test_runs_come_in_under_an_open_dashboard_and_both_may_be_killed(browser: Browser, bench: Bench) -> None:
    store = open_store(bench.data)
    store.check_writable()
    store.ingest(add_run(store, 1).run_id)
    known: list[str] = []
    for round_ in range(3):
        dashboard = bench.start("dashboard", "--port", "0")
        assert dashboard.stdout is not None
        address = dashboard.stdout.readline().split()[0]
        shown(browser, f"{address}overview")
        writer = ingesting(bench.data, 10 + 1000 * round_)
        try:
            before = browser.js(f"return {LAST}")
            known += said_by(writer, 5)
            browser.until(
                "more rows, unasked", lambda before=before: browser.js(f"return {LAST}") not in (None, before)
            )
            shown(browser, f"{address}devices")
            assert browser.errors() == []
        finally:
            for process in (writer, dashboard):
                os.kill(process.pid, signal.SIGKILL)
                process.communicate()
        browser.open("about:blank")
        browser.forget()
    # Killed between its folder and the index, a run is stored, and comes in with the next look.
    assert bench.run("runs").returncode == 0
    done = bench.run("verify")
    assert done.returncode == 0, done.stdout + done.stderr
    stored = set(store.stored_ids())
    assert set(known) <= stored
    with served(bench) as address:
        shown(browser, f"{address}overview")
        told = browser.js("return fetch('/export/overview/3.csv').then(r => r.text())")
        assert {line.partition(",")[0] for line in told.splitlines()[1:]} == stored
        assert browser.errors() == []
