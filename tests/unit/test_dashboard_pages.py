"""The dashboard as a browser asks it, without one: pages by their callbacks, rows as CSV, tables and SQL."""

from __future__ import annotations

import csv
import io
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

import duckdb
import pytest
from flask.testing import FlaskClient
from store_kit import add_run, store_at

from benchmarks import made_store
from meltbench.dashboard.app import make_app
from meltbench.pages.page import pages
from meltbench.pages.published import FILTERS, Published
from meltbench.store import Store, index

FILTER_IDS = [{"type": "filter", "word": word} for word in FILTERS]
SQL_PANELS = [
    (name, at) for name, file in pages().items() if file.page for at, one in enumerate(file.page.panel) if one.sql
]


NEWEST = next(at for at, one in enumerate(pages()["overview"].page.panel) if one.title == "Newest runs")  # type: ignore[union-attr]


class Dashboard:
    """A dashboard that is asked as Dash's own script asks it."""

    def __init__(self, store: Store) -> None:
        self.published = Published(store)
        self.app = make_app(self.published)
        self.client: FlaskClient = self.app.server.test_client()

    def get(self, address: str) -> Any:
        return self.client.get(address, headers={"Host": "localhost:8050"})

    def callback(self, output: str, inputs: list[Any], state: list[Any] | None = None, outputs: Any = None) -> Any:
        body = {"output": output, "outputs": outputs, "inputs": inputs, "state": state or [], "changedPropIds": []}
        made = self.client.post("/_dash-update-component", json=body, headers={"Host": "localhost:8050"})
        assert made.status_code in (200, 204), made.text
        return made.get_json()["response"] if made.status_code == 200 else {}

    def page(self, path: str, search: str = "", version: str | None = "v", theme: str = "light") -> Any:
        """Children of the page, links to the others, and the filters' options and values; nothing: as it was."""
        outputs = [
            {"id": "page", "property": "children"},
            {"id": "nav", "property": "children"},
            [{"id": one, "property": "options"} for one in FILTER_IDS],
            [{"id": one, "property": "value"} for one in FILTER_IDS],
        ]
        inputs = [
            {"id": "at", "property": "pathname", "value": path},
            {"id": "at", "property": "search", "value": search},
            {"id": "version", "property": "data", "value": version},
            {"id": "theme", "property": "data", "value": theme},
        ]
        many = '{"type":"filter","word":["ALL"]}'
        return self.callback(f"..page.children...nav.children...{many}.options...{many}.value..", inputs, None, outputs)

    def look(self, known: str | None) -> str | None:
        """What the tick says: the version, or None where it is still the known one."""
        found = self.callback(
            "version.data",
            [{"id": "tick", "property": "n_intervals", "value": 1}],
            [{"id": "version", "property": "data", "value": known}],
            {"id": "version", "property": "data"},
        )
        return str(found["version"]["data"]) if found else None


def parts(value: Any, kind: str = "") -> Iterator[dict[str, Any]]:
    """The components in a page, of one kind where it is named."""
    if isinstance(value, dict):
        if "type" in value and "props" in value and (not kind or value["type"] == kind):
            yield value["props"]
        for one in value.values():
            yield from parts(one, kind)
    elif isinstance(value, list):
        for one in value:
            yield from parts(one, kind)


def troubles(found: Any) -> list[str]:
    return [str(one["children"]) for one in parts(found["page"]["children"]) if one.get("className") == "trouble"]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Store:
    return made_store.small(tmp_path_factory.mktemp("made") / "data", runs=48, samples=600)


@pytest.fixture(scope="module")
def dashboard(made: Store) -> Dashboard:
    return Dashboard(made)


@pytest.fixture(scope="module")
def hostile(tmp_path_factory: pytest.TempPathFactory) -> Dashboard:
    return Dashboard(made_store.small(tmp_path_factory.mktemp("hostile") / "data", runs=48, samples=400, hostile=True))


@pytest.mark.parametrize("name", [*pages()])
def test_every_page_opens(dashboard: Dashboard, made: Store, name: str) -> None:
    for search in ("", f"?run={made.run_ids()[0]}", "?device=orin-nano&theme=dark", "?model=none"):
        found = dashboard.page(f"/{name}", search)
        assert troubles(found) == []
        assert [one["children"] for one in parts(found["page"]["children"], "H1")] == [pages()[name].title]
        assert [one["className"] for one in parts(found["nav"]["children"], "Span")] == ["here"]


def test_the_frame_comes_before_anything_is_known(dashboard: Dashboard) -> None:
    assert dashboard.get("/").status_code == 200
    layout = dashboard.get("/_dash-layout").get_json()
    assert {one["id"]["word"] for one in parts(layout, "Dropdown")} == {*FILTERS}
    known = {str(one["output"]) for one in dashboard.get("/_dash-dependencies").get_json()}
    assert {"at.search", "at.href", "version.data", "theme.data", "saved.data"} <= known
    assert dashboard.page("/", version=None) == {}
    assert dashboard.page("/", theme="") == {}


def test_the_first_page_is_that_of_the_root(dashboard: Dashboard) -> None:
    assert dashboard.page("/")["page"] == dashboard.page("/overview")["page"]


def test_the_address_is_the_state(dashboard: Dashboard) -> None:
    found = dashboard.page("/overview", "?device=orin-nano&device=gone&metric=ttft_s&night=2026-09-08")
    many = {key: value for key, value in found.items() if key.startswith("{")}
    by_word = {json.loads(key)["word"]: value for key, value in many.items()}
    assert by_word["device"]["value"] == ["orin-nano", "gone"]
    assert {"orin-nano", "gone", "cloud-vm"} <= {
        *by_word["device"]["options"]
    }  # what is chosen stays, also if it is no more
    assert by_word["night"]["value"] == ["2026-09-08"]
    assert by_word["night"]["options"] == sorted(by_word["night"]["options"], reverse=True)
    assert by_word["model"]["value"] == []
    (choice,) = parts(found["page"]["children"], "Dropdown")
    assert (choice["value"], choice["id"]) == ("ttft_s", {"type": "choice", "name": "metric", "was": "ttft_s"})
    for link in parts(found["nav"]["children"], "Link"):
        assert link["href"].endswith(
            "?device=orin-nano&device=gone&night=2026-09-08"
        )  # the filter is shared, a choice not


@pytest.mark.parametrize("path", ["/nothing", "/%3Cscript%3E", "/overview/1", "/../etc/passwd", "/" + "x" * 3000])
def test_a_page_that_is_not_there_names_those_that_are(dashboard: Dashboard, path: str) -> None:
    (said,) = troubles(dashboard.page(path))
    assert said.startswith("There is no page ")
    assert "overview, pareto, run" in said


@pytest.mark.parametrize(
    "search",
    ["?" + "x" * 9000, "?device=%00", "?run=%27%3B--", "?night=\ud800", "?=&&=", "?metric=%3Cb%3E", "device", "?x=("],
)
def test_a_strange_address_breaks_no_page(dashboard: Dashboard, search: str) -> None:
    for name in pages():
        assert dashboard.page(f"/{name}", search)["page"]["children"]


@pytest.mark.parametrize("name", [*pages()])
def test_hostile_names_are_text(hostile: Dashboard, name: str) -> None:
    run = hostile.published.store.run_ids()[0]
    found = hostile.page(f"/{name}", f"?run={run}")
    assert troubles(found) == []
    for figure in (one["figure"] for one in parts(found["page"]["children"], "Graph")):
        assert not re.search(
            r"<(?!br>|extra>|/extra>|b>|/b>)", json.dumps(figure, ensure_ascii=False).replace("<=", "")
        )


def test_an_empty_store_says_how_to_begin(tmp_path: Path) -> None:
    empty = Dashboard(store_at(tmp_path))
    index.refresh(empty.published.store)
    for name in pages():
        (said,) = troubles(empty.page(f"/{name}"))
        assert said == "There is no run in this store yet. The first one: meltbench run"


def test_a_store_that_cannot_be_read_says_so(tmp_path: Path) -> None:
    absent = Dashboard(store_at(tmp_path))
    (said,) = troubles(absent.page("/"))
    assert "cannot be read: there is no index" in said


def test_new_runs_are_seen(tmp_path: Path) -> None:
    one = Dashboard(store_at(tmp_path, runs=1))
    assert one.look(None) == ""
    one.page("/overview")
    version = one.look("")
    assert version
    assert one.look(version) is None
    one.published.store.ingest(add_run(one.published.store, 1).run_id)
    one.look(version)
    assert one.published._opening is not None
    one.published._opening.join()
    assert one.look(version) not in (None, version)
    (grid,) = (
        grid
        for grid in parts(one.page("/overview")["page"]["children"], "AgGrid")
        if f"overview-{NEWEST}" in str(grid["id"])
    )
    assert len(grid["rowData"]) == 2


def test_a_broken_page_says_its_line_and_the_others_work(
    dashboard: Dashboard, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "dashboards").mkdir()
    (tmp_path / "dashboards" / "mine.toml").write_text('title = "t"\n[[panel]]\ntitle = "a"\nkind = "tabel"\n')
    panels = "".join(
        f'[[panel]]\ntitle = "a"\nkind = "table"\nsql = """\n{k}"""\n' for k in ("SELECT 1", "SELECT\nnope")
    )
    (tmp_path / "dashboards" / "half.toml").write_text(f'title = "t"\n{panels}')
    monkeypatch.chdir(tmp_path)
    (said,) = troubles(dashboard.page("/mine"))
    assert said.startswith(f"{tmp_path}/dashboards/mine.toml: panel[0].kind: expected one of")
    found = dashboard.page("/half")
    (said,) = troubles(found)
    assert said.startswith(f"{tmp_path}/dashboards/half.toml, line 12: Binder Error")
    assert len([*parts(found["page"]["children"], "AgGrid")]) == 1
    assert troubles(dashboard.page("/overview")) == []
    assert [one["children"] for one in parts(found["nav"]["children"], "Link") if one["className"]] == ["mine (broken)"]


# rows


def rows_of(text: str) -> list[list[str]]:
    return list(csv.reader(io.StringIO(text)))


@pytest.mark.parametrize(("name", "number"), SQL_PANELS)
def test_the_query_asked_anew_gives_the_rows(dashboard: Dashboard, made: Store, name: str, number: int) -> None:
    """The SQL of a panel stands for itself: another DuckDB on the same file gives what the CSV has."""
    query = f"?device=orin-nano&device=it%27s%3F&metric=ttft_s&run={made.run_ids()[0]}"
    answer = dashboard.get(f"/export/{name}/{number}.sql{query}")
    assert answer.status_code == 200
    assert answer.headers["Content-Disposition"] == f'attachment; filename="{name}-{number}.sql"'
    found = rows_of(dashboard.get(f"/export/{name}/{number}.csv{query}").text)
    connection = duckdb.connect(str(made.index), read_only=True)
    rows: list[tuple[Any, ...]] = []
    for statement in connection.extract_statements(answer.text):
        rows = connection.execute(statement).fetchall()
    columns = [part[0] for part in connection.description or ()]
    connection.close()
    assert found[0] == columns
    assert sorted(found[1:]) == sorted(["" if value is None else str(value) for value in row] for row in rows)


@pytest.mark.parametrize("name", ["compare", "pareto"])
def test_what_is_computed_has_the_rows_it_is_computed_from(dashboard: Dashboard, made: Store, name: str) -> None:
    text = dashboard.get(f"/export/{name}/0.sql?engine=llama.cpp").text
    with index.attached(made.index) as connection:
        rows = connection.execute(text).fetchall()
    assert len(rows) > 1
    assert dashboard.get(f"/export/{name}/0.csv?engine=llama.cpp").status_code == 200


def test_samples_of_a_run_are_asked_of_its_folder(dashboard: Dashboard, made: Store) -> None:
    run = made.run_ids()[0]
    rows = duckdb.sql(dashboard.get(f"/export/run/2.sql?run={run}").text).fetchall()
    assert len(rows) > 100
    assert rows_of(dashboard.get(f"/export/run/2.csv?run={run}").text)[0][:3] == ["signal", "unit", "t_s"]


def test_a_csv_has_all_rows_and_no_formula(hostile: Dashboard) -> None:
    store = hostile.published.store
    found = rows_of(hostile.get(f"/export/overview/{NEWEST}.csv").text)
    assert len(found) == 1 + len(store.run_ids())
    cells = [cell for row in found for cell in row]
    assert any("cmd|" in cell for cell in cells)
    assert not any(cell.startswith(("=", "+", "@", "\t", "\r")) for cell in cells)


def test_a_csv_is_not_cut_where_the_table_is(
    dashboard: Dashboard, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "dashboards").mkdir()
    panel = '[[panel]]\ntitle = "a"\nkind = "table"\nlimit = 3\nsql = "SELECT range AS a FROM range({})"\n'
    (tmp_path / "dashboards" / "mine.toml").write_text(
        'title = "t"\n' + panel.format(3000) + panel.format(200_001) + panel.format(0)
    )
    monkeypatch.chdir(tmp_path)
    (grid, *_) = parts(dashboard.page("/mine")["page"]["children"], "AgGrid")
    assert len(grid["rowData"]) == 3
    assert len(rows_of(dashboard.get("/export/mine/0.csv").text)) == 3001
    table = dashboard.get("/rows/mine/0").text
    assert (table.count("<tr>"), table.count("The first 2000 rows.")) == (2001, 1)
    # Nothing is cut in silence.
    refused = dashboard.get("/export/mine/1.csv")
    assert (refused.status_code, refused.text) == (
        400,
        "the query gives more than 200,000 rows; choose fewer runs in the filter\n",
    )
    assert dashboard.get("/export/mine/2.csv").text == "a\n"


def test_a_table_without_scripts(hostile: Dashboard) -> None:
    answer = hostile.get(f"/rows/overview/{NEWEST}")
    assert answer.mimetype == "text/html"
    assert "<script" not in answer.text
    assert "<img" not in answer.text
    assert "&lt;script&gt;" in answer.text
    assert answer.text.count("<tr>") == 1 + len(hostile.published.store.run_ids())


@pytest.mark.parametrize(
    "address",
    [
        "/export/nothing/0.csv",
        "/export/overview/99.csv",
        "/export/overview/99.sql",
        "/rows/nothing/0",
        "/rows/overview/99",
    ],
)
def test_a_panel_that_is_not_there(dashboard: Dashboard, address: str) -> None:
    answer = dashboard.get(address)
    assert (answer.status_code, answer.text) == (404, "there is no such panel\n")


@pytest.mark.parametrize("address", ["/export/overview/-1.csv", "/export/overview/x.csv", "/export/../secret/0.csv"])
def test_an_address_that_is_none_gives_the_frame_or_nothing(dashboard: Dashboard, address: str) -> None:
    answer = dashboard.get(address)
    assert answer.mimetype == "text/html"
    assert "attachment" not in str(answer.headers)


@pytest.mark.parametrize(
    ("address", "said"),
    [
        ("/export/overview/0.csv?metric=decode_tsp", "unknown metric 'decode_tsp'; did you mean decode_tps?"),
        ("/export/run/0.csv", "there are no rows behind this"),
        ("/export/run/0.sql", "there is nothing that could be asked for again"),
        ("/rows/compare/0?a=x&b=y", "'x' selects nothing"),
        ("/export/run/2.csv?run=gone", "there is no run 'gone' in this store"),
    ],
)
def test_rows_that_cannot_be_had_are_a_line(dashboard: Dashboard, address: str, said: str) -> None:
    answer = dashboard.get(address)
    assert answer.status_code == 400
    assert answer.mimetype == "text/plain"
    assert said in answer.text
    assert answer.text.count("\n") == 1


def test_links_of_a_panel_lead_to_its_rows(hostile: Dashboard) -> None:
    name = "it's <b> & = ?"
    found = hostile.page("/trends", f"?model={quote(name)}&metric=ttft_s")
    links = [one["href"] for one in parts(found["page"]["children"], "A")]
    assert [link.partition("?")[0] for link in links] == [
        "/rows/trends/0",
        "/export/trends/0.csv",
        "/export/trends/0.sql",
    ]
    for link in links:
        assert hostile.get(link).status_code == 200
    assert "it''s <b> & = ?" in hostile.get(links[2]).text
