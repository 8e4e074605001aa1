"""The model hub: where its files are, and what a repository holds."""

from __future__ import annotations

import json
import os
import re
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any
from urllib.parse import quote, urlsplit

from meltbench.errors import FetchError, UnknownName, UserError
from meltbench.models.download import Patience, Remote, reason, shown
from meltbench.models.hashes import SHA256
from meltbench.models.header import MAX_FILES

if TYPE_CHECKING:
    from collections.abc import Callable

PUBLIC = "https://huggingface.co"
NAME = re.compile(r"[A-Za-z0-9][\w.-]{0,95}/[A-Za-z0-9][\w.-]{0,95}\Z", re.ASCII)
FILE = re.compile(r"(?!.*\.\.)[\w.+-]+(/[\w.+-]+)*\.gguf\Z", re.ASCII)
FOLDER = re.compile(r"(?!.*\.\.)[\w.+-]+(/[\w.+-]+)*\Z", re.ASCII)
_COMMIT = re.compile(r"[0-9a-f]{40}\Z")
_MEMBER = re.compile(r"[A-Za-z0-9_][\w.+-]{0,199}\Z", re.ASCII)
_DENIED = "set HF_TOKEN to a token that may read it, or check the name"
_MAX_LISTING_BYTES = 8 << 20
_LOOPBACK = {"localhost", "127.0.0.1", "::1"}
_CODE = re.compile(r"\.(so(\.\d+)*|dylib|dll|exe|py|pyc|sh|wasm)\Z", re.ASCII | re.IGNORECASE)
_PART = re.compile(r"-\d{5}-of-\d{5}\.gguf\Z")


@dataclass(frozen=True)
class Listed:
    """A file of a repository, as the hub's listing has it; None where the listing does not say."""

    name: str
    size_bytes: int | None = None
    sha256: str | None = None


@dataclass(frozen=True)
class Listing:
    """What a repository holds at one commit; ``revision`` is the commit where the hub names it."""

    revision: str
    files: tuple[Listed, ...]


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


def page(repo: str, revision: str, inside: str, *, folder: bool = False) -> str:
    """The address of a file, or of a folder's page, for a person to open."""
    kind = "tree" if folder else "resolve"
    return f"{shown(base_url())}/{repo}/{kind}/{quote(revision, safe='')}/{quote(inside)}".rstrip("/")


def only_gguf(repo: str, revision: str = "main") -> str:
    """Return the one GGUF file of ``repo``. UserError listing them when there are several or none."""
    files = sorted(one.name for one in listing(repo, revision).files if FILE.match(one.name))
    if len(files) == 1:
        return files[0]
    if not files:
        raise UserError(f"{repo} holds no GGUF file", hint="name a repository with GGUF files")
    raise UserError(
        f"{repo} holds {len(files)} GGUF files", hint=f"say {repo}:FILE with one of {', '.join(files[:20])}"
    )


def members(listed: Listing, folder: str) -> tuple[Listed, ...]:
    """Return the files that lie in ``folder`` itself ("" is the top), by their names in it: no texts for people, none
    that is hidden, none of a folder below, and nothing that could be run: code of a stranger's is never fetched.

    FetchError where there are too many, or one whose name could be anything.
    """
    prefix = f"{folder}/" if folder else ""
    found = [replace(one, name=one.name[len(prefix) :]) for one in listed.files if one.name.startswith(prefix)]
    found = [one for one in found if "/" not in one.name and not one.name.startswith(".")]
    found = [one for one in found if not one.name.lower().endswith((".md", ".png", ".jpg", ".pdf"))]
    found = [one for one in found if not _CODE.search(one.name)]
    if len(found) > MAX_FILES:
        raise FetchError(f"{len(found)} files are in one folder of the hub, at most {MAX_FILES} can be a model")
    for one in found:
        if not _MEMBER.match(one.name):
            raise FetchError(f"{one.name[:80]!r} is no name of a model's file", hint="use another repository")
    return tuple(sorted(found, key=lambda one: one.name))


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


def listing(repo: str, revision: str) -> Listing:
    """Return what ``repo`` holds at ``revision``. UnknownName: it is not there; FetchError: it cannot be asked."""
    url = f"{base_url()}/api/models/{repo}/revision/{quote(revision, safe='')}?blobs=true"
    body = _asked(url, repo)
    try:
        answer = json.loads(body)
        commit = answer.get("sha")
        files = tuple(_listed(one) for one in answer["siblings"])
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise FetchError(f"{shown(url)} does not answer like a model hub", hint="check HF_ENDPOINT") from error
    return Listing(commit if isinstance(commit, str) and _COMMIT.match(commit) else revision, files)


def _listed(sibling: Any) -> Listed:
    lfs, size = sibling.get("lfs"), sibling.get("size")
    sha256 = lfs.get("sha256") if isinstance(lfs, dict) else None
    is_size = isinstance(size, int) and not isinstance(size, bool) and 0 <= size < 1 << 50
    is_sha = isinstance(sha256, str) and SHA256.match(sha256)
    return Listed(str(sibling["rfilename"]), size if is_size else None, sha256 if is_sha else None)


def _asked(url: str, repo: str) -> bytes:
    """Return the answer of the hub's API, of a bounded size."""
    import requests

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
        unreached = FetchError(f"cannot reach {shown(url)}: {reason(error)}", hint="check the network and try again")
        unreached.transient = True
        raise unreached from error
    return body
