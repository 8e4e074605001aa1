"""A made plug at the edge of the world: an HTTP server that answers as a Shelly of the second generation.

Whether its device works, and draws LOAD_W at the wall or else IDLE_W, it looks at itself; it integrates that, so that
its counter is exact, and says both as fresh as it is asked.
"""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

IDLE_W, LOAD_W = 6.0, 24.0


class Plug:
    """The state of the plug: watts now, and joules since it was plugged in."""

    def __init__(self, working: Callable[[], bool]) -> None:
        self._working, self._stop = working, threading.Event()
        self.watts, self.joules = IDLE_W, 500_000.0
        self._thread = threading.Thread(target=self._measure)
        self._thread.start()

    def _measure(self) -> None:
        last = time.monotonic()
        while not self._stop.wait(0.02):
            watts, now = LOAD_W if self._working() else IDLE_W, time.monotonic()
            self.watts, self.joules, last = watts, self.joules + watts * (now - last), now

    def answer(self, path: str) -> dict[str, Any]:
        if path == "/shelly":
            return {"id": "made-plug", "gen": 2}
        energy = {"total": self.joules / 3600, "by_minute": [0.0, 0.0, 0.0]}
        return {"switch:0": {"id": 0, "apower": self.watts, "voltage": 230.0, "aenergy": energy}, "cloud": {}}

    def close(self) -> None:
        self._stop.set()
        self._thread.join()


@contextmanager
def made_meter(working: Callable[[], bool]) -> Iterator[str]:
    """The address of a plug of a device that works when that says so."""
    plug = Plug(working)

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            body = json.dumps(plug.answer(self.path)).encode()
            self.send_response(200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    try:
        yield f"127.0.0.1:{server.server_address[1]}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
        plug.close()
