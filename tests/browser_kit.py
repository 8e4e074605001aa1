"""A browser for tests: Debian's Chromium without a window, which reaches this machine, files on it, and nothing else.

``browser`` is a fixture; import it where it is used. Without a browser or its driver a test is skipped and says so.
"""

from __future__ import annotations

import json
import os
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeVar

import pytest
from lab_images import BROWSERS, DRIVER, which

if TYPE_CHECKING:
    from selenium.webdriver.chrome.webdriver import WebDriver
    from selenium.webdriver.remote.webelement import WebElement

T = TypeVar("T")
WAIT_S = 30.0
_POLL_S = 0.05
# Chromium asks its maker for much that no page asked for: none of it may leave, and none of it is to be tried.
_QUIET = (
    *("--headless=new", "--hide-scrollbars", "--mute-audio", "--no-first-run", "--no-default-browser-check"),
    *("--disable-background-networking", "--disable-component-update", "--disable-sync", "--disable-default-apps"),
    *("--disable-domain-reliability", "--disable-breakpad", "--disable-extensions", "--disable-gpu"),
    *("--disable-dev-shm-usage", "--force-color-profile=srgb", "--font-render-hinting=none", "--lang=en-GB"),
    "--disable-features=Translate,OptimizationHints,MediaRouter,DialMediaRouteProvider",
    # Names resolve to nothing, and a proxy that is not there takes what has a number for a name.
    "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1",
    "--proxy-server=http://127.0.0.1:9",
    "--proxy-bypass-list=<-loopback>;127.0.0.1",
)


@dataclass
class Browser:
    """One window. ``driver`` is selenium's; ``folder`` has its profile, its downloads and its pictures."""

    driver: WebDriver
    folder: Path
    console: list[dict[str, Any]] = field(default_factory=list)
    network: list[dict[str, Any]] = field(default_factory=list)

    @property
    def downloads(self) -> Path:
        """Where files go that a page gives."""
        return self.folder / "downloads"

    def open(self, address: str) -> None:
        """Go to an address, until the page and what it names is loaded."""
        self.driver.get(address)

    def js(self, script: str, *arguments: Any) -> Any:
        """What ``return ...`` of a script gives in the page."""
        return self.driver.execute_script(script, *arguments)

    def cdp(self, command: str, **parameters: Any) -> Any:
        """A command of Chromium's own protocol."""
        return self.driver.execute_cdp_cmd(command, parameters)

    def find(self, css: str) -> list[WebElement]:
        """The elements of a selector, those that are there now."""
        return self.driver.find_elements("css selector", css)

    def until(self, what: str, seen: Callable[[], T], within_s: float = WAIT_S) -> T:
        """The first answer that is true. Fails with ``what`` was waited for, and what the page had to complain of."""
        from selenium.common.exceptions import StaleElementReferenceException

        end = time.monotonic() + within_s
        while True:
            try:
                if found := seen():
                    return found
            except StaleElementReferenceException:
                pass  # the page drew it anew between the two looks
            if time.monotonic() > end:
                said = "; ".join(self.errors()) or "no error"
                pytest.fail(f"{what}: not within {within_s:g} s at {self.driver.current_url} ({said})")
            time.sleep(_POLL_S)

    def appears(self, css: str, within_s: float = WAIT_S) -> WebElement:
        """The first visible element of a selector, waited for."""
        (found,) = self.until(
            f"{css} to be seen", lambda: [one for one in self.find(css) if one.is_displayed()][:1], within_s
        )
        return found

    def says(self, text: str, css: str = "body", within_s: float = WAIT_S) -> None:
        """Wait for a text within the elements of a selector."""
        self.until(f"{text!r} in {css}", lambda: any(text in one.text for one in self.find(css)), within_s)

    def size(self, width: int, height: int) -> None:
        """Size of the page in CSS pixels."""
        self.cdp(
            "Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=width < 600
        )

    def scheme(self, scheme: Literal["light", "dark"], *, still: bool = True) -> None:
        """What the person is taken to prefer: light or dark, and with ``still`` nothing that moves."""
        wanted = [{"name": "prefers-color-scheme", "value": scheme}]
        if still:
            wanted.append({"name": "prefers-reduced-motion", "value": "reduce"})
        self.cdp("Emulation.setEmulatedMedia", features=wanted)

    def offline(self, off: bool = True) -> None:
        """Take the network away, this machine's own too; files stay."""
        self.cdp("Network.enable")
        self.cdp("Network.emulateNetworkConditions", offline=off, latency=0, downloadThroughput=-1, uploadThroughput=-1)

    def keys(self, *keys: str) -> None:
        """Type on the keyboard, wherever the focus is."""
        from selenium.webdriver.common.action_chains import ActionChains

        ActionChains(self.driver).send_keys(*keys).perform()

    def shot(self, name: str, *, whole: bool = True) -> Path:
        """A picture of the page, from top to bottom or as far as the window shows; where it lies.

        It goes to $MELTBENCH_SHOTS where that is set, for people to look at.
        """
        folder = Path(os.environ.get("MELTBENCH_SHOTS") or self.folder / "shots")
        folder.mkdir(parents=True, exist_ok=True)
        import base64

        told = self.cdp("Page.captureScreenshot", format="png", captureBeyondViewport=whole)
        path = folder / f"{name}.png"
        path.write_bytes(base64.b64decode(told["data"]))
        return path

    def errors(self) -> list[str]:
        """What the console complained of and which requests failed, since the browser started or ``forget``."""
        self._read()
        severe = [f"console: {one['message']}" for one in self.console if one["level"] == "SEVERE"]
        return [*severe, *_failed(self.network)]

    def requested(self) -> list[str]:
        """Every address that was asked for, in order."""
        self._read()
        asked = [
            one["params"]["request"]["url"] for one in self.network if one["method"] == "Network.requestWillBeSent"
        ]
        return [url for url in asked if not url.startswith(("data:", "blob:"))]

    def forget(self) -> None:
        """Errors and requests so far are over."""
        self._read()
        self.console.clear()
        self.network.clear()

    def _read(self) -> None:
        """Logs are handed out once, so they are kept here."""
        self.console += self.driver.get_log("browser")  # type: ignore[no-untyped-call]
        told = self.driver.get_log("performance")  # type: ignore[no-untyped-call]
        self.network += [json.loads(one["message"])["message"] for one in told]


def _failed(network: list[dict[str, Any]]) -> list[str]:
    """Requests that got no answer, or one of 400 and more. One that the page itself gave up is none, nor is one of the
    browser's own, which no page sent."""
    asked = {
        one["params"]["requestId"]: one["params"]["request"]["url"]
        for one in network
        if one["method"] == "Network.requestWillBeSent"
    }
    found = []
    for one in network:
        told = one["params"]
        if one["method"] == "Network.loadingFailed" and not told.get("canceled") and told["requestId"] in asked:
            found.append(f"request: {asked[told['requestId']]}: {told['errorText']}")
        elif one["method"] == "Network.responseReceived" and told["response"]["status"] >= 400:
            found.append(f"request: {told['response']['url']}: status {told['response']['status']}")
    return found


def programs() -> tuple[str, str]:
    """The browser and its driver. Skips the test where one of them is not there."""
    browser = next((path for name in BROWSERS if (path := which(name))), None)
    driver = which(DRIVER)
    for path, what in ((browser, BROWSERS[0]), (driver, DRIVER)):
        if path is None:
            pytest.skip(f"no {what} on this machine: tests/lab/setup_lab.py installs it")
    assert browser is not None
    assert driver is not None
    return browser, driver


@contextmanager
def opened(folder: Path, width: int = 1280, height: int = 900) -> Iterator[Browser]:
    """A browser with a profile of its own below ``folder``; it is gone at the end, whatever happened."""
    pytest.importorskip("selenium", reason="no selenium: pip install 'meltbench[dev]'")
    from selenium.webdriver import Chrome, ChromeOptions
    from selenium.webdriver.chrome.service import Service

    binary, driver = programs()
    options = ChromeOptions()
    options.binary_location = binary
    root = ("--no-sandbox",) if os.geteuid() == 0 else ()
    for word in (*_QUIET, *root, f"--window-size={width},{height}", f"--user-data-dir={folder / 'profile'}"):
        options.add_argument(word)
    (folder / "downloads").mkdir(parents=True, exist_ok=True)
    options.add_experimental_option(
        "prefs", {"download.default_directory": str(folder / "downloads"), "download.prompt_for_download": False}
    )
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    # Named, so that selenium's manager never looks for one on the network.
    service = Service(executable_path=driver, log_output=str(folder / "chromedriver.log"))
    window = Browser(Chrome(options=options, service=service), folder)
    try:
        window.driver.set_page_load_timeout(60)
        window.size(width, height)
        yield window
    finally:
        window.driver.quit()
        shutil.rmtree(folder / "profile", ignore_errors=True)


@pytest.fixture
def browser(tmp_path: Path) -> Iterator[Browser]:
    """A browser of the test's own."""
    with opened(tmp_path / "browser") as window:
        yield window
