"""Prints what a USB instrument measures, one JSON line a reading. A helper of meltbench (docs/probe.md).

    python -B -P instrument.py PERIOD_MS joulescope|monsoon|fnb58 [address=...]

    {"t0_ns":N,"t1_ns":N,"reply":{...}}

``address``: serial number, where there are several. Of a Joulescope the reply is its own statistics, of a FNIRSI meter
its packets as hexadecimal digits, of Monsoon's 5000 samples a second their number and means over the period. Stamps are
CLOCK_BOOTTIME at the end of what a reply is a mean of. What cannot be read is a line
{"cannot":"denied|absent|error","detail":"..."}, and then the helper ends. Imports nothing of meltbench; ends on
SIGTERM, or when nobody reads what it prints.

Packages of the extra "meters", of which a process loads the one it wants: pyjoulescope_driver (Apache-2.0), Monsoon
(MIT by its metadata), pyusb (BSD-3-Clause), which needs libusb.
"""

from __future__ import annotations

import errno
import json
import os
import signal
import sys
import threading
import time
from typing import Any, NoReturn

PIPE = os.dup(1)  # what meltbench reads; packages print words of their own to 1
Options = dict[str, str]
Row = dict[str, Any]


def say(line: Row) -> None:
    # One write: a line is shorter than a pipe's page, so it is never torn.
    os.write(PIPE, json.dumps(line, separators=(",", ":")).encode() + b"\n")


def end(word: str, detail: str) -> NoReturn:
    """What cannot be mended by reading again."""
    say({"cannot": word, "detail": " ".join(detail.split())[:300]})
    raise SystemExit(1)


def boot_ns() -> int:
    return time.clock_gettime_ns(time.CLOCK_BOOTTIME)


def joulescope(period_s: float, options: Options) -> None:
    """The instrument's own statistics, as they come: of a JS220 at the period, of a JS110 twice a second."""
    try:
        from pyjoulescope_driver import Driver
    except ImportError as error:
        end("absent", f"pyjoulescope_driver is not installed: {error}")

    def told(_: str, value: Row) -> None:
        now = boot_ns()
        signals = {name: {"avg": one["avg"]} for name, one in value["signals"].items() if "avg" in one}
        energy = value["accumulators"]["energy"]
        reply = {"time": {"range": value["time"]["range"]}, "signals": signals, "accumulators": {"energy": energy}}
        say({"t0_ns": now, "t1_ns": now, "reply": reply})

    with Driver() as driver:
        paths = [path for path in driver.device_paths() if options.get("address", "") in path]
        if len(paths) != 1:
            end("absent", f"{len(paths)} Joulescopes: {', '.join(paths) or 'none'}; one is needed, address names it")
        (path,) = paths
        driver.open(path)
        if "js110" in path:
            driver.publish(f"{path}/s/i/range/select", "auto")
            driver.subscribe(f"{path}/s/sstats/value", "pub", told)
        else:
            driver.publish(f"{path}/s/i/range/mode", "auto")
            driver.publish(f"{path}/s/stats/scnt", round(1e6 * period_s))
            driver.publish(f"{path}/s/stats/ctrl", 1)
            driver.subscribe(f"{path}/s/stats/value", "pub", told)
        while path in driver.device_paths():
            time.sleep(1.0)
    end("absent", "the Joulescope was unplugged")


class Sums:
    """Samples of a period, summed up: 5000 lines a second would be the observer's own load."""

    def __init__(self) -> None:
        self.start_ns, self.n = boot_ns(), 0
        self.amps = self.volts = self.watts = 0.0

    def add(self, amps: float, volts: float) -> None:
        """One sample."""
        self.n += 1
        self.amps, self.volts, self.watts = self.amps + amps, self.volts + volts, self.watts + amps * volts

    def line(self) -> Row:
        """Means over what came, with how many came in how long."""
        now = boot_ns()
        sums = {"amps": self.amps, "volts": self.volts, "watts": self.watts}
        means = {name: value / self.n for name, value in sums.items()} if self.n else {}
        return {
            "t0_ns": now,
            "t1_ns": now,
            "reply": {"samples": self.n, "seconds": (now - self.start_ns) / 1e9, **means},
        }


def monsoon(period_s: float, options: Options) -> None:
    """PyMonsoon writes its CSV into a pipe of ours. The output's voltage stays as it is: it is the device's supply."""
    try:
        import usb.core
        from Monsoon import HVPM, sampleEngine
    except ImportError as error:
        end("absent", f"Monsoon is not installed: {error}")
    instrument = HVPM.Monsoon()
    serial = options.get("address")
    try:
        instrument.setup_usb(int(serial) if serial and serial.isdigit() else None)
    except usb.core.NoBackendError as error:
        end("absent", f"pyusb has no libusb: {error}")
    except usb.core.USBError as error:
        end("denied" if error.errno == errno.EACCES else "error", f"Monsoon: {error}")
    except ValueError as error:  # of the package, for an instrument that another program left sampling
        end("error", f"Monsoon: {error}")
    if instrument.Protocol.DEVICE is None:
        end("absent", "no Monsoon at USB")
    engine = sampleEngine.SampleEngine(instrument)
    engine.ConsoleOutput(False)
    source, sink = os.pipe()
    engine.enableCSVOutput(f"/dev/fd/{sink}")
    why: list[str] = []

    def sample() -> None:
        try:
            engine.startSampling(sampleEngine.triggers.SAMPLECOUNT_INFINITE)
        except Exception as error:  # noqa: BLE001  what PyMonsoon raises is a plain Exception
            why.append(str(error))
        finally:  # both ends of the pipe, so that its other end is told
            engine.disableCSVOutput()
            os.close(sink)

    threading.Thread(target=sample, daemon=True).start()
    sums = Sums()
    with os.fdopen(source, encoding="ascii", errors="replace") as rows:
        for row in rows:
            found = row_of(row)
            if found is not None:
                sums.add(found[0] / 1e3, found[1])
            if boot_ns() - sums.start_ns >= period_s * 1e9:
                say(sums.line())
                sums = Sums()
    end("error", f"the Monsoon stopped sampling: {' '.join(why) or 'it was not calibrated'}")


def row_of(row: str) -> tuple[float, float] | None:
    """mA and V of a row "time,mA,V,"; numpy from 2.0 on prints a number with its type."""
    cells = [cell.removeprefix("np.float64(").removesuffix(")") for cell in row.strip().split(",")]
    try:
        return float(cells[1]), float(cells[2])
    except (ValueError, IndexError):
        return None


# By vendor and product how often a meter wants to be told to go on, s (fnirsi-usb-power-data-logger).
FNIRSI = {(0x2E3C, 0x5558): 1.0, (0x2E3C, 0x0049): 1.0, (0x0483, 0x003A): 0.003, (0x0483, 0x003B): 0.003}
HELLO = (b"\xaa\x81" + bytes(61) + b"\x8e", b"\xaa\x82" + bytes(61) + b"\x96")
GO_ON = b"\xaa\x83" + bytes(61) + b"\x9e"
PACKET = 64


def fnb58(period_s: float, options: Options) -> None:
    """Packets of four samples as they come, 25 a second whatever the period."""
    del period_s, options
    try:
        import usb.core
        import usb.util
    except ImportError as error:
        end("absent", f"pyusb is not installed: {error}")
    try:
        found = ((usb.core.find(idVendor=v, idProduct=p), every_s) for (v, p), every_s in FNIRSI.items())
        device, every_s = next(((one, s) for one, s in found if one is not None), (None, 0.0))
        if device is None:
            end("absent", "no FNIRSI meter at USB")
        out, back = endpoints(usb, device)
        for words in (*HELLO, HELLO[1] if every_s == 1.0 else GO_ON):
            out.write(words)
        due = time.monotonic() + every_s
        while True:
            t0 = boot_ns()
            packet = bytes(back.read(PACKET, timeout=5000))
            if packet[:2] == b"\xaa\x04":
                say({"t0_ns": t0, "t1_ns": boot_ns(), "reply": {"packet": packet.hex()}})
            if time.monotonic() >= due:
                out.write(GO_ON)
                due = time.monotonic() + every_s
    except usb.core.USBError as error:
        end("denied" if error.errno == errno.EACCES else "error", f"FNIRSI meter: {error}")
    except usb.core.NoBackendError as error:
        end("absent", f"pyusb has no libusb: {error}")


def endpoints(usb: Any, device: Any) -> tuple[Any, Any]:
    """Where its human interface is written and read."""
    device.reset()
    number = 0
    for configuration in device:
        for interface in configuration:
            if device.is_kernel_driver_active(interface.bInterfaceNumber):
                device.detach_kernel_driver(interface.bInterfaceNumber)
            if interface.bInterfaceClass == 3:
                number = interface.bInterfaceNumber
    device.set_configuration()
    chosen = device.get_active_configuration()[(number, 0)]
    out, back = (
        usb.util.find_descriptor(
            chosen, custom_match=lambda e, way=way: usb.util.endpoint_direction(e.bEndpointAddress) == way
        )
        for way in (usb.util.ENDPOINT_OUT, usb.util.ENDPOINT_IN)
    )
    return out, back


KINDS = (joulescope, monsoon, fnb58)


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
