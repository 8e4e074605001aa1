"""Stands on the loopback for a server of OpenAI's API that is on another host, behind TLS, or wants a key.

What comes from there is passed on as it comes, each piece in a chunk of its own. Runs on the target, so it imports
nothing of meltbench. The key is taken from the environment, sent to that server alone, and masked wherever the server
repeats it; while there is one, only processes of the relay's own user are served. With --tokenizer the tokens of a
streamed answer are counted once it has ended, and told in an event after it: {"meltbench": {"completion_tokens": N}}.
"""

import argparse
import functools
import http.client
import http.server
import json
import os
import signal
import socket
import ssl
import sys
import urllib.parse

KEY = "MELTBENCH_API_KEY"
MASK = b"***"
MIN_KEY = 8
ASKED = ("/chat/completions", "/completions")
TIMEOUT_S = 600.0
ASKING_S = 10.0  # of a GET: whether anybody is there
CONNECTIONS = "/proc/net/tcp"
OPEN = ("01", "04", "05")  # established; and one that has said all, and waits for the answer (FIN_WAIT1, FIN_WAIT2)
NO_INODE = "0"
LOOKS = 5  # at the kernel's list: while it is read others come and go, and one may be passed over
PIECE = 1 << 16
MAX_REQUEST = 64 << 20
MAX_KEPT = 32 << 20  # of an answer whose tokens are to be counted
STRANGERS = set()  # users that were refused, each told once


class Masked:
    """Bytes on their way with the key masked, also where it is cut by two pieces."""

    def __init__(self, key: bytes) -> None:
        self.key, self.held = key, b""

    def through(self, piece: bytes) -> bytes:
        """What can be passed on; the beginning of a key is held until it is none."""
        if not self.key:
            return piece
        piece = (self.held + piece).replace(self.key, MASK)
        most = min(len(self.key) - 1, len(piece))
        cut = next((n for n in range(most, 0, -1) if self.key.startswith(piece[-n:])), 0)
        self.held = piece[len(piece) - cut :] if cut else b""
        return piece[: len(piece) - cut]

    def rest(self) -> bytes:
        """What was held, once nothing follows."""
        held, self.held = self.held, b""
        return held


def text_of(body: bytes) -> str:
    """The text of a streamed answer, what was reasoned included."""
    found = []
    for line in body.splitlines():
        if not line.startswith(b"data:") or line[5:].strip() == b"[DONE]":
            continue
        try:
            choice = json.loads(line[5:])["choices"][0]
            delta = choice.get("delta", {})
            parts = [delta.get(key) for key in ("reasoning_content", "reasoning", "content")] + [choice.get("text")]
        except (ValueError, LookupError, TypeError, AttributeError, RecursionError):
            continue  # what is wrong with an event is for whoever reads the recorded answer
        found += [part for part in parts if isinstance(part, str)]
    # A character may come in two halves, one an event.
    return "".join(found).encode("utf-16", "surrogatepass").decode("utf-16", "replace")


def user_of(table, peer, own):
    """The user id of the process at the other end of a connection; None where the kernel's list (proc(5)) has no such.

    Ends are an IPv4 address and a port. Only an open connection counts: one that its process has closed is nobody's,
    and listed as root's, without an inode.
    """
    ends = [f"{int.from_bytes(socket.inet_aton(host), sys.byteorder):08X}:{port:04X}" for host, port in (peer, own)]
    for line in table.splitlines():
        words = line.split()
        if words[1:3] == ends and words[3] in OPEN and words[9] != NO_INODE:
            return int(words[7])
    return None


def asker(peer, own):
    """The user at the other end of a connection to this relay, as the kernel has it now."""
    for _ in range(LOOKS):
        with open(CONNECTIONS, encoding="ascii") as file:
            user = user_of(file.read(), peer, own)
        if user is not None:
            return user
    return None


class Handler(http.server.BaseHTTPRequestHandler):
    """One connection of the probe. ``upstream`` is the server, ``count`` a tokenizer's, ``key`` its key."""

    protocol_version = "HTTP/1.1"
    wbufsize = 0
    disable_nagle_algorithm = True

    def __init__(self, upstream, count, key, *args):
        self.upstream, self.count, self.key = upstream, count, key
        self.served = False
        super().__init__(*args)

    def handle(self):
        """Until its end. Whoever is not served may break his connection as often as he likes: the log does not grow."""
        try:
            super().handle()
        except ConnectionError:
            if self.served:
                raise

    def log_message(self, *_):
        """The engine's log has what went wrong, and no line for what did not."""

    def _connection(self, timeout_s):
        host, port = self.upstream.hostname, self.upstream.port
        if self.upstream.scheme == "https":
            return http.client.HTTPSConnection(host, port, timeout=timeout_s, context=ssl.create_default_context())
        return http.client.HTTPConnection(host, port, timeout=timeout_s)

    def _headers(self):
        headers = {"Content-Type": "application/json", "Accept-Encoding": "identity", "User-Agent": "meltbench"}
        return headers | ({"Authorization": f"Bearer {self.key}"} if self.key else {})

    def _is_ours(self):
        """Whether the key is used for its own user; all others are told that it is not for them."""
        user = asker(self.client_address, self.server.server_address) if self.key else None
        self.served = not self.key or user == os.getuid()
        if self.served:
            return True
        if user not in STRANGERS:
            STRANGERS.add(user)
            self._complain(f"refused what {'nobody known' if user is None else f'user {user}'} asked")
        said = "this relay serves its own user only"
        if user is None:
            said += f", and whose this connection is cannot be told: it is not, or no more, in {CONNECTIONS}"
        self._whole(403, json.dumps({"error": {"message": said}}).encode())
        return False

    def do_GET(self):
        """Whether the server is there: whatever it says of the path, unless it says that it is not ready."""
        if not self._is_ours():
            return
        try:
            connection = self._connection(ASKING_S)
            connection.request("GET", self.path, headers=self._headers())
            status = connection.getresponse().status
            connection.close()
        except (OSError, http.client.HTTPException) as error:
            self._complain(error)
            status = 599
        self._whole(200 if status < 500 else 503, b"")

    def do_POST(self):
        """Pass a request on, and the answer back."""
        if not self._is_ours():
            return
        if not self.path.endswith(ASKED):  # whoever else is on this machine has no business with the key
            self._whole(404, b"")
            return
        length = self.headers.get("Content-Length", "")
        if not length.isdecimal() or int(length) > MAX_REQUEST:
            self._whole(413, b"")
            return
        body = self.rfile.read(int(length))
        connection = self._connection(TIMEOUT_S)
        try:
            connection.request("POST", self.path, body, self._headers())
            connection.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            answer = connection.getresponse()
        except (OSError, http.client.HTTPException) as error:
            said = self._complain(error)
            self._whole(502, json.dumps({"error": {"message": f"the relay reached no server: {said}"}}).encode())
            return
        try:
            self._pass_on(answer)
        finally:
            connection.close()

    def _pass_on(self, answer):
        self.send_response_only(answer.status)
        kind = "".join(c for c in answer.getheader("Content-Type", "") if c.isprintable())
        self.send_header("Content-Type", kind.replace(self.key, MASK.decode()) if self.key else kind)
        self.send_header("Transfer-Encoding", "chunked")
        self.send_header("Connection", "close")
        self.end_headers()
        self.close_connection = True
        masked, kept, size = Masked(self.key.encode()), [], 0
        try:
            while piece := answer.read1(PIECE):
                self._chunk(masked.through(piece))
                size += len(piece)
                if self.count is not None and size <= MAX_KEPT:
                    kept.append(piece)
        except (OSError, http.client.HTTPException) as error:
            self._complain(error)
            return  # without the last chunk, so that it is seen to be cut
        if answer.length:
            self._complain(f"the answer was cut, {answer.length} bytes before its end")
            return
        self._chunk(masked.rest())
        if self.count is not None and answer.status == 200 and size <= MAX_KEPT:
            told = {"meltbench": {"completion_tokens": self.count(text_of(b"".join(kept)))}}
            self._chunk(b"data: " + json.dumps(told).encode() + b"\n\n")
        self.wfile.write(b"0\r\n\r\n")

    def _chunk(self, piece):
        if piece:
            self.wfile.write(b"%x\r\n%b\r\n" % (len(piece), piece))

    def _whole(self, status, body):
        self.send_response_only(status)
        self.send_header("Content-Length", str(len(body)))
        self.send_header("Connection", "close")
        self.end_headers()
        self.wfile.write(body)
        self.close_connection = True

    def _complain(self, error):
        """Into the engine's log, without the key."""
        said = " ".join(f"{type(error).__name__}: {error}".split()) if isinstance(error, Exception) else error
        said = (said.replace(self.key, MASK.decode()) if self.key else said)[:300]
        print(f"relay: {said}", file=sys.stderr, flush=True)
        return said


def counter(path):
    """How many tokens a text has by a tokenizer.json; special tokens of its own are not added."""
    try:
        import tokenizers
    except ImportError:
        sys.exit("relay: the package tokenizers is not installed: pip install 'meltbench[tokenizer]'")
    try:
        tokenizer = tokenizers.Tokenizer.from_file(path)
    except Exception as error:  # noqa: BLE001  the library raises Exception itself for a file that it cannot read
        sys.exit(f"relay: {path} is no tokenizer: {error}")
    return lambda text: len(tokenizer.encode(text, add_special_tokens=False).ids)


def main():
    parser = argparse.ArgumentParser(prog="relay.py", allow_abbrev=False)
    parser.add_argument("--upstream", required=True)
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--tokenizer")
    given = parser.parse_args()
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    count = counter(given.tokenizer) if given.tokenizer else None
    key = os.environ.get(KEY, "").strip()
    if not key.isascii() or not key.isprintable():
        sys.exit(f"relay: {KEY} is no key: it has letters that no header can carry")
    if key and len(key) < MIN_KEY:
        # Masked wherever it stands, so short a word would take parts out of the answers.
        said = "a server that takes any key takes a longer one"
        sys.exit(f"relay: {KEY} has {len(key)} letters, at least {MIN_KEY} are needed: {said}")
    if key and not os.access(CONNECTIONS, os.R_OK):
        sys.exit(f"relay: {CONNECTIONS} cannot be read, so nobody can tell for whom {KEY} would be used")
    handler = functools.partial(Handler, urllib.parse.urlsplit(given.upstream), count, key)
    http.server.ThreadingHTTPServer(("127.0.0.1", given.port), handler).serve_forever()


if __name__ == "__main__":
    main()
