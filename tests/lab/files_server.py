"""A real HTTP server on loopback that serves bytes and misbehaves on request."""

import hashlib
import threading
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


@dataclass
class Served:
    """One path: ``script`` holds what to do to the first requests ("cut:N", "503", "404", "ok" ...), then "ok"."""

    content: bytes
    script: list = field(default_factory=list)
    ranges: bool = True
    etag: bool = True
    headers: dict = field(default_factory=dict)
    redirect: str | None = None


class Files:
    """The files and a log of (path, Range, Authorization, status) of every request."""

    def __init__(self):
        self.paths, self.log = {}, []
        self.gate = threading.Event()
        self.gate.set()
        files = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self):
                files.serve(self)

            def log_message(self, *args):
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        self.thread = threading.Thread(target=self.server.serve_forever, kwargs={"poll_interval": 0.02})
        self.thread.start()
        self.base = f"http://127.0.0.1:{self.server.server_port}"

    def close(self):
        self.gate.set()
        self.server.shutdown()
        self.thread.join()
        self.server.server_close()

    def put(self, path, content, **how):
        self.paths[path] = Served(content, **how)
        return self.paths[path]

    def statuses(self, path):
        return [status for asked, _, _, status in self.log if asked == path]

    def serve(self, request):
        path = request.path.partition("?")[0]
        served = self.paths.get(path)
        act = served.script.pop(0) if served and served.script else "ok"
        if served is None or act.isdigit():
            return self.answer(request, path, int(act) if act.isdigit() else 404, b"<html>no</html>")
        if served.redirect:
            return self.answer(request, path, 302, b"", {"Location": served.redirect, **served.headers})
        etag = f'"{hashlib.md5(served.content).hexdigest()}"'
        headers = dict(served.headers) | ({"ETag": etag} if served.etag else {})
        start, status, asked = 0, 200, request.headers.get("Range")
        if asked and served.ranges and request.headers.get("If-Range", etag) == etag:
            start, status = int(asked.removeprefix("bytes=").rstrip("-")), 206
            if start >= len(served.content):
                return self.answer(request, path, 416, b"")
            first = start + 1 if act == "shift" else start
            headers["Content-Range"] = f"bytes {first}-{len(served.content) - 1}/{len(served.content)}"
        body = served.content[start:]
        length = len(body)
        if act == "garble":
            body = bytes(b ^ 1 for b in body)
        if act.startswith("cut:"):
            body = body[: int(act[4:])]
        return self.answer(request, path, status, body, headers, length, slow=act == "slow")

    def answer(self, request, path, status, body, headers=None, length=None, slow=False):
        self.log.append((path, request.headers.get("Range"), request.headers.get("Authorization"), status))
        request.send_response(status)
        for key, value in (headers or {}).items():
            request.send_header(key, value)
        request.send_header("Content-Length", str(len(body) if length is None else length))
        request.end_headers()
        half = len(body) // 2 if slow else 0
        request.wfile.write(body[:half])
        request.wfile.flush()
        self.gate.wait(20) if slow else None
        request.wfile.write(body[half:])
        request.close_connection = length is not None and len(body) < length
