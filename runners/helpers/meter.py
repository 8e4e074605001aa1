"""Asks an external meter and prints what it answers, one JSON line a reply. A helper of meltbench (docs/probe.md).

    python -B -P meter.py PERIOD_MS shelly|tasmota|kasa|ptdaemon address=...

    {"t0_ns":N,"t1_ns":N,"reply":{...},"channel":0}

``address``: host or host:port of a plug, or the log file that PTDaemon writes. The reply is the meter's own, less the
parts that are no measurement, with the outlet of a strip that it is of. Stamps are CLOCK_BOOTTIME around the asking.
What cannot be read is a line {"cannot":"denied|absent|again|error","detail":"..."}, and asking goes on. Imports nothing
of meltbench; ends on SIGTERM, or when nobody reads what it prints.

Shelly and Tasmota are asked in plain HTTP. Plugs of TP-Link need python-kasa of the extra "meters", which is licensed
GPL-3.0-or-later and therefore loaded in this process alone; newer plugs want the account in KASA_USERNAME and
KASA_PASSWORD. Instruments at USB have a helper of their own, instrument.py.
"""

from __future__ import annotations

import asyncio
import http.client
import json
import os
import signal
import sys
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, NoReturn
from urllib.parse import urlsplit

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterator

PIPE = os.dup(1)  # what meltbench reads; packages print words of their own to 1
DEADLINE_S = 3.0
MAX_BYTES = 64 << 10
MAX_LINE = 4000  # a longer one would be cut by who reads it
Options = dict[str, str]
Row = dict[str, Any]


class Cannot(Exception):
    """Why there is no reply, in the words of a helper."""

    def __init__(self, word: str, detail: str) -> None:
        super().__init__(detail)
        self.word = word


def say(line: Row) -> None:
    text = json.dumps(line, separators=(",", ":"))
    if len(text) > MAX_LINE:
        text = json.dumps({"cannot": "error", "detail": f"a reply of {len(text)} characters does not fit on a line"})
    # One write: a line is shorter than a pipe's page, so it is never torn.
    os.write(PIPE, text.encode() + b"\n")


def cannot(word: str, detail: str) -> None:
    say({"cannot": word, "detail": " ".join(detail.split())[:300]})


def end(word: str, detail: str) -> NoReturn:
    """What cannot be mended by asking again."""
    cannot(word, detail)
    raise SystemExit(1)


def boot_ns() -> int:
    return time.clock_gettime_ns(time.CLOCK_BOOTTIME)


def address_of(options: Options, what: str) -> str:
    return options.get("address") or end("absent", f"the profile gives no address: {what}")


@contextmanager
def limit(seconds: float) -> Iterator[None]:
    """Ends what is inside after so long, also where an answer comes byte by byte and no single read takes long."""

    def late(*_: object) -> None:
        raise TimeoutError(f"no whole answer in {seconds:g} s")

    signal.signal(signal.SIGALRM, late)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)


def every(period_s: float, read: Callable[[], Row | list[Row]]) -> None:
    """Reads and prints at absolute deadlines for ever; those that were missed are skipped, not made up for."""
    due = time.monotonic()
    while True:
        try:
            found = read()
            for line in found if isinstance(found, list) else [found]:
                say(line)
        except Cannot as error:
            cannot(error.word, str(error))
        due += period_s * max(1, -(-(time.monotonic() - due) // period_s))
        time.sleep(max(0.0, due - time.monotonic()))


def get(address: str, path: str) -> tuple[int, int, Row]:
    """The object that a plug answers, between the stamps of asking and of its last byte."""
    place = urlsplit(address if "//" in address else f"//{address}", scheme="http")
    try:
        host, port = place.hostname, place.port
    except ValueError as error:
        raise Cannot("error", f"address {address}: {error}") from None
    if place.scheme != "http" or not host:
        raise Cannot("error", f"address {address}: plugs are asked in plain HTTP, as host or host:port")
    connection = http.client.HTTPConnection(host, port or 80, timeout=DEADLINE_S)
    try:
        with limit(DEADLINE_S):
            connection.connect()
            t0 = boot_ns()
            connection.request("GET", path, headers={"Connection": "close"})
            answer = connection.getresponse()
            body = answer.read(MAX_BYTES + 1)
            t1 = boot_ns()
    except TimeoutError as error:
        raise Cannot("again", f"{address}: {error}") from None
    except OSError as error:
        raise Cannot("absent", f"{address}: {error}") from None
    except http.client.HTTPException as error:
        raise Cannot("error", f"{address} does not speak HTTP: {error!r}") from None
    finally:
        connection.close()
    return t0, t1, _object(f"{address}{path}", answer.status, body)


def _object(place: str, status: int, body: bytes) -> Row:
    if status in (401, 403):
        raise Cannot("denied", f"{place} wants a password, which this helper does not send")
    if status != http.client.OK:
        raise Cannot("error", f"{place} answers with status {status}")
    if len(body) > MAX_BYTES:
        raise Cannot("error", f"{place} answers with more than {MAX_BYTES} bytes")
    try:
        found = json.loads(body)
    except (ValueError, RecursionError):
        found = None
    if not isinstance(found, dict):
        raise Cannot("error", f"{place} answers with no JSON object")
    return found


SHELLY_PARTS = ("meters", "emeters", "unixtime", "sys", "switch:", "pm1:", "cover:", "light:", "em:", "em1:", "emdata:")
SHELLY_PARTS += ("em1data:",)


def shelly(period_s: float, options: Options) -> None:
    """Both generations: the first answers /shelly without a "gen"."""
    address = address_of(options, "the host of the plug")
    path = ""

    def read() -> Row:
        nonlocal path
        if not path:
            _, _, who = get(address, "/shelly")
            path = "/rpc/Shelly.GetStatus" if who.get("gen", 1) != 1 else "/status"
        try:
            t0, t1, said = get(address, path)
        except Cannot:
            path = ""  # whoever answers next may be another one
            raise
        kept = {key: value for key, value in said.items() if key.startswith(SHELLY_PARTS)}
        if isinstance(kept.get("sys"), dict):
            kept["sys"] = {"unixtime": kept["sys"].get("unixtime")}
        return {"t0_ns": t0, "t1_ns": t1, "reply": kept}

    every(period_s, read)


def tasmota(period_s: float, options: Options) -> None:
    address = address_of(options, "the host of the plug")

    def read() -> Row:
        t0, t1, said = get(address, "/cm?cmnd=Status%208")
        if "WARNING" in said and "StatusSNS" not in said:
            raise Cannot("denied", f"{address} wants a password, which this helper does not send")
        return {"t0_ns": t0, "t1_ns": t1, "reply": said}

    every(period_s, read)


KASA_METHODS = ("get_energy_usage", "get_current_power", "get_emeter_data")


def kasa(period_s: float, options: Options) -> None:
    address = address_of(options, "the host of the plug")
    try:
        import kasa as library
    except ImportError as error:
        end("absent", f"python-kasa is not installed: {error}")
    with asyncio.Runner() as runner:
        plug: list[KasaPlug] = []

        def read() -> list[Row]:
            known = bool(plug)
            try:
                if not known:
                    plug.append(runner.run(bounded(KasaPlug.found(library, address))))
                return runner.run(bounded(plug[0].read()))
            except TimeoutError:
                raise Cannot("again", f"{address}: no whole answer in {DEADLINE_S:g} s") from None
            except library.AuthenticationError as error:
                raise Cannot("denied", f"{address}: {error}; give KASA_USERNAME and KASA_PASSWORD") from None
            except (library.KasaException, OSError) as error:
                plug.clear()  # it is looked up again
                raise Cannot("error" if known else "absent", f"{address}: {error}") from None
            except (TypeError, ValueError, LookupError, AttributeError) as error:  # over what a plug sends
                plug.clear()
                raise Cannot("error", f"{address}: python-kasa cannot read its answer: {error!r}") from None

        every(period_s, read)


async def bounded(work: Awaitable[Any]) -> Any:
    return await asyncio.wait_for(work, DEADLINE_S)


class KasaPlug:
    """A plug of TP-Link, or each outlet of a strip: (channel, protocol, what to ask)."""

    def __init__(self, outlets: list[tuple[int, Any, Row]]) -> None:
        self.outlets = outlets

    @classmethod
    async def found(cls, library: Any, address: str) -> KasaPlug:
        """Looks the plug up; host:port is one of the first firmwares behind that port, which is asked directly."""
        host, _, port = address.partition(":")
        name, word = os.environ.get("KASA_USERNAME"), os.environ.get("KASA_PASSWORD")
        if port:
            config = library.DeviceConfig(host, port_override=int(port), timeout=round(DEADLINE_S))
            device = await library.Device.connect(config=config)
        else:
            device = await library.Discover.discover_single(host, username=name, password=word, discovery_timeout=2)
        if device is None:
            raise Cannot("absent", f"{address}: no plug answers there")
        await device.update()
        old = "iot" in type(device.protocol).__name__.lower()
        parts = list(device.children) or [device]
        found = [
            (at, *(await _of_iot(device, part, len(parts)) if old else await _of_smart(library, part)))
            for at, part in enumerate(parts)
        ]
        return cls([one for one in found if one[2]])

    async def read(self) -> list[Row]:
        """One line an outlet."""
        lines: list[Row] = []
        for channel, protocol, asked in self.outlets:
            t0 = boot_ns()
            said = await protocol.query(asked)
            more = {"channel": channel} if len(self.outlets) > 1 else {}
            lines.append({"t0_ns": t0, "t1_ns": boot_ns(), "reply": said, **more})
        if not lines:
            raise Cannot("absent", "the plug answers and measures nothing")
        return lines


async def _of_iot(device: Any, part: Any, parts: int) -> tuple[Any, Row]:
    asked: Row = {"emeter": {"get_realtime": {}}}
    return device.protocol, asked if parts == 1 else {"context": {"child_ids": [part.child_id]}, **asked}


async def _of_smart(library: Any, part: Any) -> tuple[Any, Row]:
    """Which of the methods a newer plug knows: asked for one that it does not, it refuses them all."""
    asked: Row = {}
    for method in KASA_METHODS:
        try:
            await part.protocol.query({method: None})
        except library.DeviceError:
            continue
        asked[method] = None
    return part.protocol, asked


def ptdaemon(period_s: float, options: Options) -> None:
    """Follows the log that PTDaemon writes while a measurement runs; what stood in it before is not read."""
    path = address_of(options, "the log file that PTDaemon writes")
    place, rest, first, t0 = 0, b"", True, boot_ns()

    def read() -> list[Row]:
        nonlocal place, rest, first, t0
        try:
            with open(path, "rb") as file:
                size = file.seek(0, os.SEEK_END)
                if first or size < place:  # begun anew
                    place, rest = size if first else 0, b""
                file.seek(place)
                new = file.read(MAX_BYTES)
        except OSError as error:
            word = "denied" if isinstance(error, PermissionError) else "absent"
            raise Cannot(word, f"{path}: {error.strerror}") from None
        finally:
            first = False
        place += len(new)
        *lines, rest = (rest + new).split(b"\n")
        rest, before, t0 = rest[-MAX_LINE:], t0, boot_ns()
        texts = [line.decode("utf-8", "replace").strip() for line in lines]
        # Written between the look before and this one.
        return [{"t0_ns": before, "t1_ns": t0, "reply": text[: MAX_LINE // 2]} for text in texts if text]

    every(period_s, read)


KINDS = (shelly, tasmota, kasa, ptdaemon)


def main() -> int:
    # Python's own handlers would run only between the library's calls; the default ends the process at once.
    for number in (signal.SIGTERM, signal.SIGPIPE):
        signal.signal(number, signal.SIG_DFL)
    os.dup2(2, 1)
    period_ms, kind, *words = sys.argv[1:]
    options = dict(word.split("=", 1) for word in words)
    asked = next(one for one in KINDS if one.__name__ == kind)
    asked(float(period_ms) / 1000, options)
    return 0


if __name__ == "__main__":
    sys.exit(main())
