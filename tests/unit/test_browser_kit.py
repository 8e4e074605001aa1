"""The browser sees what is wrong with a page, and nothing beyond this machine."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from browser_kit import Browser, opened

_PAGES = {
    "/": b"<!doctype html><title>good</title><p>all is well</p><script>console.log('a word')</script>",
    "/error": b"<!doctype html><script>console.error('it broke');undefined_name()</script>",
    "/missing": b"<!doctype html><img src=/not-there.png>",
    "/abroad": b"<!doctype html><script src='http://example.com/a.js'></script><script src='http://192.0.2.1/b.js'>"
    b"</script>",
    "/scheme": b"<!doctype html><meta name=viewport content='width=device-width'><p>text</p><style>"
    b"p {color: rgb(1,1,1)} @media (prefers-color-scheme: dark) {p {color: rgb(9,9,9)}}</style>",
    "/late": b"<!doctype html><body></body><script>"
    b"setTimeout(() => {document.body.innerHTML = '<p>here</p>'}, 300)</script>",
}


class _Page(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        body = _PAGES.get(self.path)
        self.send_response(404 if body is None and self.path != "/favicon.ico" else 200)
        self.send_header("Content-Type", "text/html" if self.path != "/favicon.ico" else "image/x-icon")
        self.send_header("Content-Length", str(len(body or b"")))
        self.end_headers()
        self.wfile.write(body or b"")

    def log_message(self, *_words: object) -> None:
        """Nobody reads it."""


@pytest.fixture(scope="module")
def site() -> Iterator[str]:
    with ThreadingHTTPServer(("127.0.0.1", 0), _Page) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_address[1]}"
        server.shutdown()
        thread.join()


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    with opened(tmp_path_factory.mktemp("browser")) as window:
        yield window


@pytest.fixture(autouse=True)
def anew(browser: Browser) -> None:
    browser.open("about:blank")
    browser.forget()


def test_a_good_page_has_no_error(browser: Browser, site: str) -> None:
    browser.open(f"{site}/")
    browser.says("all is well")
    assert browser.errors() == []
    assert f"{site}/" in browser.requested()
    assert any("a word" in one["message"] for one in browser.console)


def test_an_error_of_the_console_is_seen(browser: Browser, site: str) -> None:
    browser.open(f"{site}/error")
    found = browser.errors()
    assert [one for one in found if "it broke" in one]
    assert [one for one in found if "undefined_name" in one]


def test_a_failed_request_is_seen(browser: Browser, site: str) -> None:
    browser.open(f"{site}/missing")
    assert f"request: {site}/not-there.png: status 404" in browser.errors()


def test_nothing_but_this_machine_is_reached(browser: Browser, site: str) -> None:
    browser.open(f"{site}/abroad")
    found = [one for one in browser.errors() if one.startswith("request: ")]
    assert [one for one in found if "example.com" in one and "ERR_" in one]
    assert [one for one in found if "192.0.2.1" in one and "ERR_" in one]


def test_files_open_without_any_network_and_pages_do_not(browser: Browser, site: str, tmp_path: Path) -> None:
    page = tmp_path / "page.html"
    page.write_text("<!doctype html><p>of a file</p>")
    browser.offline()
    try:
        browser.open(page.as_uri())
        browser.says("of a file")
        assert browser.errors() == []
        answer = browser.driver.execute_async_script(
            "fetch(arguments[0]).then(() => arguments[1]('reached'), () => arguments[1]('no'))", site
        )
        assert answer == "no"
    finally:
        browser.offline(False)


def test_size_and_scheme_are_the_ones_asked_for(browser: Browser, site: str) -> None:
    browser.open(f"{site}/scheme")
    for scheme, colour in (("dark", "rgb(9, 9, 9)"), ("light", "rgb(1, 1, 1)")):
        browser.scheme(scheme)  # type: ignore[arg-type]
        assert browser.js("return getComputedStyle(document.querySelector('p')).color") == colour
    browser.size(390, 700)
    assert browser.js("return [innerWidth, innerHeight]") == [390, 700]
    browser.size(1280, 900)


def test_a_picture_is_taken(browser: Browser, site: str) -> None:
    browser.open(f"{site}/")
    assert browser.shot("good").read_bytes().startswith(b"\x89PNG")


def test_what_comes_late_is_waited_for_and_what_never_comes_is_named(browser: Browser, site: str) -> None:
    browser.open(f"{site}/late")
    assert browser.appears("p").text == "here"
    with pytest.raises(pytest.fail.Exception, match="table to be seen: not within"):
        browser.appears("table", within_s=0.2)
