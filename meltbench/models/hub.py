"""The model hub: where its files are, and what a repository holds."""

from __future__ import annotations

import json
import os
import re
from typing import TYPE_CHECKING, Any
from urllib.parse import quote, urlsplit

from meltbench.errors import FetchError, UnknownName, UserError
from meltbench.models.download import Patience, Remote, reason, shown

if TYPE_CHECKING:
    from collections.abc import Callable

PUBLIC = "https://huggingface.co"
NAME = re.compile(r"[A-Za-z0-9][\w.-]{0,95}/[A-Za-z0-9][\w.-]{0,95}\Z", re.ASCII)
FILE = re.compile(r"(?!.*\.\.)[\w.+-]+(/[\w.+-]+)*\.gguf\Z", re.ASCII)
_DENIED = "set HF_TOKEN to a token that may read it, or check the name"
_MAX_LISTING_BYTES = 8 << 20
_LOOPBACK = {"localhost", "127.0.0.1", "::1"}
_PART = re.compile(r"-\d{5}-of-\d{5}\.gguf\Z")


def base_url() -> str:
    """Return ``$HF_ENDPOINT``, else the public hub. UserError unless it is https (http only to this machine)."""
    base = os.environ.get("HF_ENDPOINT", "").rstrip("/") or PUBLIC
    bits = urlsplit(base)
    if bits.scheme != "https" and not (bits.scheme == "http" and bits.hostname in _LOOPBACK):
        raise UserError(f"HF_ENDPOINT is {shown(base)}", hint="expected an address that starts with https://")
    return base


def remote(repo: str, revision: str, file: str, size_bytes: int | None) -> Remote:
    """Return the address of a file of a repository, with the user's token where there is one."""
    url = f"{base_url()}/{repo}/resolve/{quote(revision, safe='')}/{quote(file)}"
    return Remote(url, size_bytes, auth=_auth(), hint_denied=_DENIED)


def only_gguf(repo: str, revision: str = "main") -> str:
    """Return the one GGUF file of ``repo``. UserError listing them when there are several or none."""
    files = [f for f in _listing(repo, revision) if FILE.match(f)]
    if len(files) == 1:
        return files[0]
    if not files:
        raise UserError(f"{repo} holds no GGUF file", hint="name a repository with GGUF files")
    raise UserError(
        f"{repo} holds {len(files)} GGUF files", hint=f"say {repo}:FILE with one of {', '.join(files[:20])}"
    )


def check_file(file: str) -> None:
    """UserError when ``file`` is not one whole GGUF file of a repository."""
    if not FILE.match(file):
        raise UserError(
            f"{file!r} is not the name of a GGUF file in a repository", hint="expected owner/repo:file.gguf"
        )
    if _PART.search(file):
        raise UserError(
            f"{file} is one part of a split model", hint="split models are not supported: use a single file"
        )


def _auth() -> Callable[[Any], Any] | None:
    """Return what adds the token to a request; requests drops it again on a redirect to another host."""
    token = os.environ.get("HF_TOKEN", "").strip()
    if not token:
        return None
    if not re.fullmatch(r"[\x21-\x7e]+", token):
        raise UserError("HF_TOKEN holds characters that a token cannot have", hint="set it again, without spaces")

    def add(request: Any) -> Any:
        request.headers["Authorization"] = f"Bearer {token}"
        return request

    return add


def _listing(repo: str, revision: str) -> list[str]:
    import requests

    url = f"{base_url()}/api/models/{repo}/revision/{quote(revision, safe='')}"
    patience = Patience()
    try:
        with requests.get(
            url, auth=_auth(), stream=True, timeout=(patience.connect_s, patience.read_s), verify=True
        ) as response:
            if response.status_code in (401, 403, 404):
                raise UnknownName(
                    "hub repository", repo, (), hint=f"{shown(url)} says {response.status_code}; {_DENIED}"
                )
            if response.status_code != 200:
                raise FetchError(f"cannot list {repo}: HTTP {response.status_code}", hint=f"name {repo}:FILE.gguf")
            body = b""
            for chunk in response.iter_content(1 << 16):
                body += chunk
                if len(body) > _MAX_LISTING_BYTES:
                    raise FetchError(f"{shown(url)} sends more than {_MAX_LISTING_BYTES} bytes")
    except requests.RequestException as error:
        raise FetchError(
            f"cannot reach {shown(url)}: {reason(error)}", hint="check the network and try again"
        ) from error
    try:
        siblings = json.loads(body)["siblings"]
        return sorted(str(s["rfilename"]) for s in siblings)
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise FetchError(f"{shown(url)} does not answer like a model hub", hint="check HF_ENDPOINT") from error
