"""Who may look at the dashboard, and what its answers allow a browser to do."""

from __future__ import annotations

import socket
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from flask.testing import FlaskClient
from hypothesis import given
from hypothesis import strategies as st
from store_kit import store_at

from meltbench.dashboard import guard, serve
from meltbench.dashboard.app import make_app
from meltbench.errors import MissingExtra, StoreError, UserError
from meltbench.pages.published import Published
from meltbench.store import Store

TOKEN = "a token of more than sixteen & = ; characters"


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    return store_at(tmp_path_factory.mktemp("store"), runs=1)


@pytest.fixture(scope="module")
def local(store: Store) -> FlaskClient:
    return make_app(Published(store)).server.test_client()


@pytest.fixture
def opened(store: Store) -> FlaskClient:
    """A dashboard that was opened to others, in a browser without its cookie."""
    return make_app(Published(store), TOKEN).server.test_client()


@pytest.mark.parametrize("host", ["localhost", "localhost:8050", "127.0.0.1:8050", "127.0.0.1", "[::1]:8050", "[::1]"])
def test_this_machine_may_look_under_its_own_names(local: FlaskClient, host: str) -> None:
    assert local.get("/", headers={"Host": host}).status_code == 200


@pytest.mark.parametrize(
    "host",
    [
        "elsewhere.example",
        "elsewhere.example:8050",
        "localhost.elsewhere.example",
        "127.0.0.1.nip.io:80",
        "0.0.0.0:8050",
        "",
    ],
)
@pytest.mark.parametrize(
    "address", ["/", "/_dash-layout", "/export/overview/2.csv", "/rows/overview/2", "/assets/style.css"]
)
def test_a_name_of_elsewhere_is_refused(local: FlaskClient, host: str, address: str) -> None:
    # A page of elsewhere whose name was made to lead here would read the store.
    answer = local.get(address, headers={"Host": host})
    assert answer.status_code in (400, 403)
    assert "tiny" not in answer.text


def test_headers_of_every_answer_keep_a_browser_here(local: FlaskClient, opened: FlaskClient) -> None:
    here = {"Host": "localhost"}
    answers = [
        local.get("/", headers=here),
        local.get("/_dash-layout", headers=here),
        local.get("/rows/overview/2", headers=here),
        local.get("/rows/nothing/0", headers=here),
        local.get("/assets/nothing", headers=here),
        local.post("/", headers=here),
        local.get("/", headers={"Host": "elsewhere.example"}),
        opened.get("/"),
        opened.get("/", query_string={"token": TOKEN}),
    ]
    assert [one.status_code for one in answers] == [200, 200, 200, 404, 404, 405, 403, 401, 302]
    for one in answers:
        policy = one.headers["Content-Security-Policy"]
        for rule in ("default-src 'none'", "connect-src 'self'", "frame-ancestors 'none'", "form-action 'none'"):
            assert rule in policy
        assert "http" not in policy
        assert "*" not in policy
        assert one.headers["X-Content-Type-Options"] == "nosniff"
        assert one.headers["Referrer-Policy"] == "no-referrer"
        assert one.headers["Cache-Control"]
    assert answers[2].headers["Cache-Control"] == "no-store"


@pytest.mark.parametrize(
    "address", ["/", "/_dash-layout", "/export/overview/2.csv", "/rows/overview/2", "/assets/style.css"]
)
def test_without_the_token_nothing_is_seen(opened: FlaskClient, address: str) -> None:
    for query in ({}, {"token": ""}, {"token": TOKEN[:-1]}, {"token": f"{TOKEN}x"}, {"token": "ü\0"}):
        answer = opened.get(address, query_string=query)
        assert answer.status_code == 401
        assert "tiny" not in answer.text
        assert TOKEN not in answer.text
    opened.set_cookie(guard.COOKIE, "wrong")
    assert opened.get(address).status_code == 401
    assert opened.post("/_dash-update-component", json={}).status_code == 401


def test_the_token_is_taken_once_and_leaves_the_address(opened: FlaskClient) -> None:
    answer = opened.get("/run", query_string={"run": "a b", "token": TOKEN, "device": "ü&"})
    assert answer.status_code == 302
    assert answer.headers["Location"] == "/run?run=a+b&device=%C3%BC%26"
    cookie = answer.headers["Set-Cookie"]
    assert cookie.startswith(f"{guard.COOKIE}=")
    assert "HttpOnly" in cookie
    assert "SameSite=Strict" in cookie
    assert opened.get("/").status_code == 200
    for name in ("desk.example", "192.0.2.7:8050"):  # by whatever name it has there
        assert opened.get("/", query_string={"token": TOKEN}, headers={"Host": name}).status_code == 302


@pytest.mark.parametrize(
    ("address", "to"),
    [
        ("/?token=T", "/"),
        ("/?%74oken=T&a=1", "/?a=1"),
        ("/?a=1&token=T&token=other", "/?a=1"),
        ("/a%3Fb%0d%0aX-Y:1?token=T", "/a%3Fb%0D%0AX-Y%3A1"),
    ],
)
def test_where_the_token_leads(store: Store, address: str, to: str) -> None:
    client = make_app(Published(store), "T").server.test_client()
    answer = client.get(address, base_url="http://desk:8050")
    assert (answer.status_code, answer.headers["Location"]) == (302, to)


def test_the_token_leads_to_no_other_machine(opened: FlaskClient) -> None:
    answer = opened.get("/", query_string={"token": TOKEN}, environ_overrides={"PATH_INFO": "//elsewhere.example/a"})
    assert (answer.status_code, answer.headers["Location"]) == (302, "/elsewhere.example/a")


@given(st.text(st.characters(codec=None)), st.text(min_size=1))
def test_tokens_are_the_same_or_not(given_text: str, token: str) -> None:
    assert guard._same(token, token)
    if given_text.encode("utf-8", "replace") != token.encode():
        assert not guard._same(given_text, token)


# the server


@pytest.fixture
def no_token(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MELTBENCH_TOKEN", raising=False)


def serving(store: Store, host: str, port: int = 0) -> Iterator[serve.Serving]:
    one = serve.bound(store, host, port)
    try:
        yield one
    finally:
        one.close()


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost"])
def test_here_no_token_is_asked_for(store: Store, no_token: None, host: str) -> None:
    for one in serving(store, host):
        assert one.address == f"http://{host}:{one.server.effective_port}/"
        assert one.server.effective_host == "127.0.0.1"


@pytest.mark.parametrize("host", ["0.0.0.0", "127.0.0.2", ""])
def test_opened_to_others_it_asks_for_one(store: Store, no_token: None, host: str) -> None:
    addresses = []
    for _ in range(2):
        for one in serving(store, host):
            name = host if host.startswith("127") else socket.gethostname()
            start, _, token = one.address.partition("/?token=")
            assert start == f"http://{name}:{one.server.effective_port}"
            assert len(token) >= 32
            addresses.append(token)
    assert addresses[0] != addresses[1]


def test_a_token_of_ones_own(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MELTBENCH_TOKEN", TOKEN)
    for one in serving(store, "127.0.0.2"):
        assert one.address.endswith("/?token=a%20token%20of%20more%20than%20sixteen%20%26%20%3D%20%3B%20characters")
    for weak in ("", "short", "x" * 15, "ü" * 20, "x" * 20 + "\n"):
        monkeypatch.setenv("MELTBENCH_TOKEN", weak)
        with pytest.raises(UserError, match="MELTBENCH_TOKEN has fewer than 16 characters") as told:
            serve.bound(store, "0.0.0.0", 0)
        assert weak not in str(told.value) or weak == ""


def test_a_port_that_is_taken_is_one_line(store: Store) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        said = f"cannot listen on 127.0.0.1, port {port}: Address already in use; another dashboard may be open there"
        with pytest.raises(UserError, match=said):
            serve.bound(store, "127.0.0.1", port)


@pytest.mark.parametrize("host", ["nowhere.invalid", "203.0.113.1", "a..b", "x" * 300, "ü\udcff"])
def test_a_host_that_is_not_ours_is_one_line(store: Store, host: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MELTBENCH_TOKEN", TOKEN)
    with pytest.raises(UserError, match=r"cannot listen on|is no name of a machine") as told:
        serve.bound(store, host, 0)
    assert "\n" not in str(told.value)


@pytest.mark.parametrize("name", ["dash", "dash_ag_grid", "waitress"])
def test_what_is_not_installed_is_named(store: Store, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(MissingExtra, match=r"is not installed; pip install 'meltbench\[dashboard\]'"):
        serve.bound(store, "127.0.0.1", 0)


def test_a_store_of_a_newer_meltbench_is_told_at_once(tmp_path: Path) -> None:
    import duckdb

    store = store_at(tmp_path, runs=1)
    with duckdb.connect(str(store.index)) as connection:
        connection.execute("UPDATE schema_version SET version = 99")
    with pytest.raises(StoreError, match="has schema 99, this meltbench knows"):
        serve.bound(store, "127.0.0.1", 0)
