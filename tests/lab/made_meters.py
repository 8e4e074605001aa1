"""Meters at the edge of the world: real sockets on loopback that answer as plugs do, or misbehave as networks do."""

from __future__ import annotations

import json
import socketserver
import struct
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any

Answer = Callable[[Any, str], None]  # what a connection and the path that was asked for come to
Row = dict[str, Any]


class _Server(socketserver.ThreadingTCPServer):
    allow_reuse_address = True
    daemon_threads = True


@contextmanager
def serving(handle: Callable[[Any], None]) -> Iterator[str]:
    """The address of a server that gives every connection to ``handle``."""

    class Handler(socketserver.BaseRequestHandler):
        def handle(self) -> None:
            handle(self.request)

    with _Server(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.02,))
        thread.start()
        try:
            yield f"127.0.0.1:{server.server_address[1]}"
        finally:
            server.shutdown()
            thread.join()


@contextmanager
def plug(answer: Answer) -> Iterator[str]:
    """A plug that is asked in HTTP."""

    def handle(connection: Any) -> None:
        asked = b""
        while b"\r\n\r\n" not in asked and (part := connection.recv(4096)):
            asked += part
        with suppress(OSError):  # who asked has gone, as its deadline told it to
            answer(connection, asked.split(b" ")[1].decode() if asked else "")

    with serving(handle) as address:
        yield address


def reply(body: object, status: str = "200 OK", more: str = "") -> bytes:
    """An HTTP answer: an object as JSON, bytes as they are."""
    raw = body if isinstance(body, bytes) else json.dumps(body).encode()
    head = f"HTTP/1.1 {status}\r\nContent-Type: application/json\r\nContent-Length: {len(raw)}\r\n{more}\r\n"
    return head.encode() + raw


class Load:
    """A load of known power behind a plug, counted since it was made."""

    def __init__(self, watts: float) -> None:
        self.watts, self.start_ns = watts, time.clock_gettime_ns(time.CLOCK_BOOTTIME)

    @property
    def joules(self) -> float:
        return self.watts * (time.clock_gettime_ns(time.CLOCK_BOOTTIME) - self.start_ns) / 1e9


def shelly_first(load: Load) -> Answer:
    """A Shelly Plug S: watts and watt-minutes, those with more digits than it has so that a second can be tested."""

    def answer(connection: Any, path: str) -> None:
        meter = {"power": load.watts, "is_valid": True, "counters": [0, 0, 0], "total": load.joules / 60}
        found = {
            "/shelly": {"type": "SHPLG-S", "mac": "3CE90E000000", "auth": False, "fw": "made"},
            "/status": {"wifi_sta": {"ssid": "bench"}, "unixtime": 0, "relays": [{"ison": True}], "meters": [meter]},
        }.get(path)
        connection.sendall(reply(found) if found else reply(b"Not Found", "404 Not Found"))

    return answer


def shelly_second(load: Load, channels: int = 1) -> Answer:
    """A Shelly Plus or Pro with so many switches; the first has the load."""

    def answer(connection: Any, path: str) -> None:
        status: Row = {"ble": {}, "sys": {"mac": "EC62", "unixtime": 1714295251, "ram_size": 247000}, "wifi": {}}
        for at in range(channels):
            own = load if at == 0 else Load(0)
            energy = {"total": own.joules / 3600, "by_minute": [0, 0, 0], "minute_ts": 1714295220}
            status[f"switch:{at}"] = {
                "id": at,
                "output": True,
                "apower": own.watts,
                "voltage": 230.0,
                "aenergy": energy,
            }
        found = {
            "/shelly": {"name": None, "id": "shellyplus-made", "gen": 2, "app": "Made", "auth_en": False},
            "/rpc/Shelly.GetStatus": status,
        }.get(path)
        connection.sendall(reply(found) if found else reply(b"Not Found", "404 Not Found"))

    return answer


def tasmota(load: Load) -> Answer:
    """A plug with Tasmota: whole watts, kWh with more digits than it has."""

    def answer(connection: Any, path: str) -> None:
        assert path == "/cm?cmnd=Status%208"
        energy = {"Total": load.joules / 3.6e6, "Power": round(load.watts), "Voltage": 230, "Current": 0.1}
        connection.sendall(reply({"StatusSNS": {"Time": "2024-04-28T11:20:07", "ENERGY": energy}}))

    return answer


def _xored(raw: bytes, *, back: bool) -> bytes:
    key, out = 171, bytearray()
    for byte in raw:
        out.append(key ^ byte)
        key = byte if back else key ^ byte
    return bytes(out)


@contextmanager
def kasa(load: Load, outlets: int = 1, refuse: bool = False, nonsense: bool = False) -> Iterator[str]:
    """A plug of TP-Link's first protocol (HS110), or a strip (HS300); ``refuse``: it hangs up on whoever asks;
    ``nonsense``: its answers are objects with nothing in them that one would expect."""

    def realtime(asked: Row) -> Row:
        own = load if (asked.get("context") or {}).get("child_ids", ["A00"]) == ["A00"] else Load(0)
        return {
            "voltage_mv": 230000,
            "current_ma": 100,
            "power_mw": round(own.watts * 1e3),
            "total_wh": own.joules / 3600,
            "err_code": 0,
        }

    def handle(connection: Any) -> None:
        while (head := connection.recv(4)) and not refuse:
            (n,) = struct.unpack(">I", head)
            raw = b""
            while len(raw) < n:
                raw += connection.recv(n - len(raw))
            asked = json.loads(_xored(raw, back=True))
            found = {name: 5 if nonsense else _of(name, asked) for name in asked if name != "context"}
            answer = json.dumps(found).encode()
            connection.sendall(struct.pack(">I", len(answer)) + _xored(answer, back=False))

    def _of(module: str, asked: Row) -> Row:
        info: Row = {
            "sw_ver": "1.2.5 Build made",
            "hw_ver": "1.0",
            "model": "HS300(EU)" if outlets > 1 else "HS110(EU)",
            "deviceId": "A",
            "mac": "50:C7:BF:00:00:00",
            "alias": "bench",
            "relay_state": 1,
            "on_time": 5,
            "feature": "TIM:ENE",
            "mic_type": "IOT.SMARTPLUGSWITCH",
            "rssi": -50,
            "latitude_i": 0,
            "longitude_i": 0,
            "err_code": 0,
        }
        if outlets > 1:
            children = [{"id": f"A0{n}", "alias": f"o{n}", "state": 1, "on_time": 5} for n in range(outlets)]
            info |= {"children": children, "child_num": outlets}
        now = {"year": 2024, "month": 4, "mday": 28, "hour": 10, "min": 0, "sec": 0, "err_code": 0}
        known: Row = {
            "system": {"get_sysinfo": info},
            "emeter": {"get_realtime": realtime(asked)},
            "time": {"get_time": now, "get_timezone": {"index": 38, "err_code": 0}},
        }
        return {
            what: known.get(module, {}).get(what, {"err_code": -1, "err_msg": "made: not supported"})
            for what in asked[module] or {}
        }

    with serving(handle) as address:
        yield address
