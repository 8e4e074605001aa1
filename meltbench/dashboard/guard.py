"""Who may look: this machine under its own names, or whoever has the token where the dashboard was opened to others."""

from __future__ import annotations

import hmac
from typing import TYPE_CHECKING, Any
from urllib.parse import quote, urlencode

if TYPE_CHECKING:
    import flask

COOKIE = "meltbench_token"
# A name of elsewhere that was made to lead here (DNS rebinding) would let its page read the store.
_OWN_NAMES = ("localhost", "127.0.0.1", "[::1]")
_HEADERS = {
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self' 'unsafe-inline' 'unsafe-eval'; style-src 'self' 'unsafe-inline'; "
        "img-src 'self' data: blob:; font-src 'self' data:; connect-src 'self'; frame-ancestors 'none'; "
        "base-uri 'none'; form-action 'none'"
    ),
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-store",
}


def protect(server: flask.Flask, token: str | None) -> None:
    """Answer nobody else, and give every answer headers that keep a browser from talking to anybody else."""
    from flask import abort, make_response, redirect, request

    @server.before_request
    def check() -> Any:
        if token is None:
            name = request.host.rsplit(":", 1)[0] if not request.host.endswith("]") else request.host
            if name not in _OWN_NAMES:
                abort(403, "this dashboard answers to localhost only; meltbench dashboard --host opens it to others")
            return None
        given = request.args.get("token")
        if given is not None and _same(given, token):
            kept = urlencode([(name, value) for name, value in request.args.items(multi=True) if name != "token"])
            path = f"/{quote(request.path.lstrip('/'))}"  # two strokes would be the name of another machine
            answer = make_response(redirect(f"{path}?{kept}" if kept else path))
            answer.set_cookie(COOKIE, token, httponly=True, samesite="Strict")
            return answer
        if not _same(request.cookies.get(COOKIE, ""), token):
            abort(401, "open the address that meltbench dashboard printed: it has the token in it")
        return None

    @server.after_request
    def headers(answer: flask.Response) -> flask.Response:
        for name, value in _HEADERS.items():
            if name != "Cache-Control" or "Cache-Control" not in answer.headers:
                answer.headers[name] = value
        return answer


def _same(given: str, token: str) -> bool:
    return hmac.compare_digest(given.encode("utf-8", "replace"), token.encode())
