"""One URL into one file: resumed, retried where that can help, never mistaken for whole.

The file grows under its ``.part`` name with a sidecar that remembers which version of the remote file it is (ETag or
Last-Modified). It is resumed only when the server confirms that version; otherwise it starts over.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote, urlsplit

from meltbench.errors import FetchError, ModelDamaged
from meltbench.models.hashes import pins_path
from meltbench.paths import sha256_of

if TYPE_CHECKING:
    from collections.abc import Callable

    import requests

    Progress = Callable[[int, int | None], None]

_CHUNK = 1 << 16  # what a cut connection loses at most
_PROGRESS_RESETS = 1 << 20
_SPARE_BYTES = 64 << 20
_TRANSIENT = {408, 425, 429, 500, 502, 503, 504}
_MAX_WAIT_S = 30.0


@dataclass(frozen=True)
class Patience:
    """How often and how long to try. ``attempts`` in a row that bring less than 1 MiB end the download."""

    attempts: int = 4
    backoff_s: float = 0.5
    connect_s: float = 10.0
    read_s: float = 60.0


@dataclass(frozen=True)
class Remote:
    """What to fetch: ``size_bytes`` is what it must have, where that is known.

    ``hash_known`` says that the caller will check the bytes against a hash from elsewhere; then a part is continued
    also where the server gives its files no version.
    ``auth`` adds credentials to a prepared request (for the host of ``url`` only); ``verify`` is a CA bundle or True.
    ``most_bytes``: nothing larger is taken, whatever the server says of it.
    """

    url: str
    size_bytes: int | None = None
    hash_known: bool = False
    auth: Callable[[Any], Any] | None = None
    verify: str | bool = True
    hint_denied: str = "check your credentials"
    most_bytes: int | None = None

    def check_size(self, size_bytes: int) -> None:
        """Raise TooLarge for more than is taken."""
        if self.most_bytes is not None and size_bytes > self.most_bytes:
            said = f"{shown(self.url)} is larger than the {self.most_bytes >> 20} MiB that are taken"
            raise TooLarge(said, hint="take a smaller file")


@dataclass(frozen=True)
class Got:
    """How a download went.

    ``joined``: the file was put together from more than one answer. ``stated_sha256``: what the hub's own
    X-Linked-ETag header says the file is.
    """

    joined: bool
    stated_sha256: str | None = None


class TooLarge(FetchError):
    """The file is larger than is taken of such files."""


class _TryAgainError(Exception):
    """This attempt failed in a way that another may not."""

    def __init__(self, why: str, after_s: float | None = None) -> None:
        super().__init__(why)
        self.after_s = after_s


def download(remote: Remote, part: Path, progress: Progress, patience: Patience, extra_bytes: int = 0) -> Got:
    """Bring the whole of ``remote`` into ``part``.

    ``extra_bytes`` must stay free on the disk beside it. FetchError when it cannot be had; the part is kept then,
    and also on Ctrl-C, for the next call to continue.
    """
    if urlsplit(remote.url).scheme == "file":
        return _copy(remote, part, progress, extra_bytes)
    failures, joined = 0, False
    while True:
        before = _size(part)
        joined = joined or before > 0
        try:
            stated = _attempt(remote, part, progress, patience, extra_bytes)
        except _TryAgainError as again:
            failures = 1 if _size(part) >= before + _PROGRESS_RESETS else failures + 1
            if failures >= patience.attempts:
                error = FetchError(f"cannot fetch {shown(remote.url)}: {again}", hint="check the network and try again")
                error.transient = True
                raise error from again
            wait_s = patience.backoff_s * 2 ** (failures - 1) if again.after_s is None else again.after_s
            time.sleep(min(wait_s, _MAX_WAIT_S))
        else:
            return Got(joined, stated)


def checked(
    remote: Remote,
    part: Path,
    sha256: str | None,
    what: str,
    progress: Progress,
    patience: Patience,
    extra_bytes: int = 0,
) -> Got:
    """Download ``remote``; on a wrong hash drop it, and once try anew if it was put together from several answers.

    ModelDamaged, naming ``what``, when it has another hash than ``sha256``; None: nobody has said one.
    """
    remote = replace(remote, hash_known=sha256 is not None)
    got = download(remote, part, progress, patience, extra_bytes)
    found = sha256_of(part)
    if sha256 is not None and found != sha256 and got.joined:
        drop(part)
        got = download(remote, part, progress, patience, extra_bytes)
        found = sha256_of(part)
    if sha256 is not None and found != sha256:
        drop(part)
        raise ModelDamaged(
            f"{what} is not the file it was: expected sha256 {sha256}, got {found}",
            hint=f"it was replaced at its source, or changed on the way; nothing was kept (pins: {pins_path()})",
        )
    return got


def drop(part: Path) -> None:
    """Remove a part and its sidecar."""
    part.unlink(missing_ok=True)
    _sidecar(part).unlink(missing_ok=True)


def shown(url: str) -> str:
    """Return ``url`` without credentials and query, which may be signatures."""
    bits = urlsplit(url)
    return f"{bits.scheme}://{bits.netloc.rpartition('@')[2]}{bits.path}"


def reason(error: BaseException) -> str:
    """Return the innermost cause of a requests error in a few words."""
    inner = getattr(error.args[0], "reason", error.args[0]) if error.args else error
    text = " ".join(str(inner).split())
    return text.rpartition(": ")[2] if "Connection" in text.partition(": ")[0] else text[:200]


def check_space(folder: Path, needed_bytes: int) -> None:
    """FetchError when ``folder`` has less free than ``needed_bytes`` and a reserve of 64 MiB."""
    free = shutil.disk_usage(folder).free
    if free < needed_bytes + _SPARE_BYTES:
        raise FetchError(
            f"{folder} has {free >> 20} MiB free, needed are {(needed_bytes + _SPARE_BYTES) >> 20} MiB",
            hint="free some space, or set MELTBENCH_CACHE to a larger disk",
        )


def _attempt(remote: Remote, part: Path, progress: Progress, patience: Patience, extra_bytes: int) -> str | None:
    import requests

    have, validator, whole = _standing(part, remote.hash_known)
    if have and have == whole:
        progress(have, whole)
        return None
    # Compressed transfer would make lengths and ranges mean something else than the file.
    headers = {"Accept-Encoding": "identity"}
    if have:
        headers |= {"Range": f"bytes={have}-"} | ({"If-Range": validator} if validator else {})
    try:
        with requests.get(
            remote.url,
            headers=headers,
            auth=remote.auth,
            verify=remote.verify,
            stream=True,
            timeout=(patience.connect_s, patience.read_s),
        ) as response:
            start, total = _accept(remote, response, part, have, whole)
            check_space(part.parent, (total or 0) - start + extra_bytes)
            if not start:
                # Emptied before the sidecar names the new version: a kill between must not leave old bytes under it.
                part.write_bytes(b"")
                _remember(part, response, total)
            _receive(remote, response, part, start, total, progress)
            return _stated_sha256(response)
    except requests.exceptions.SSLError as error:
        raise FetchError(
            f"cannot fetch {shown(remote.url)}: {reason(error)}",
            hint="set REQUESTS_CA_BUNDLE (or PIP_CERT) to your certificates",
        ) from error
    except (requests.ConnectionError, requests.Timeout, requests.exceptions.ChunkedEncodingError) as error:
        raise _TryAgainError(reason(error)) from error
    except requests.RequestException as error:
        raise FetchError(f"cannot fetch {shown(remote.url)}: {reason(error)}") from error


def _accept(
    remote: Remote, response: requests.Response, part: Path, have: int, whole: int | None
) -> tuple[int, int | None]:
    """Return where this answer starts in the file and how long the file is; raise when it is not the file."""
    url, status = shown(remote.url), response.status_code
    if remote.url.startswith("https:") and not response.url.startswith("https:"):
        raise FetchError(f"{url} leads to {shown(response.url)}, which is not https", hint="use another source")
    if status in (401, 403):
        raise FetchError(f"{url} is denied (HTTP {status})", hint=remote.hint_denied)
    if status == 416:
        drop(part)
        raise _TryAgainError("the server does not have the rest of the file (HTTP 416)", 0.0)
    if status in _TRANSIENT:
        raise _TryAgainError(f"HTTP {status}", _retry_after(response))
    if status not in (200, 206):
        raise FetchError(f"cannot fetch {url}: HTTP {status}", hint="check the name" if status == 404 else None)
    if response.headers.get("Content-Encoding", "identity") != "identity":
        raise FetchError(f"{url} is served compressed, which cannot be checked", hint="use another source or mirror")
    start, total = 0, _number(response.headers.get("Content-Length"))
    if status == 206:
        found = re.match(r"bytes (\d{1,18})-\d{1,18}/(\d{1,18})$", response.headers.get("Content-Range", ""))
        if not found or int(found[1]) != have or (whole is not None and int(found[2]) != whole):
            drop(part)
            raise _TryAgainError("the server sent another range than was asked for", 0.0)
        start, total = have, int(found[2])
    if remote.size_bytes is not None and total not in (None, remote.size_bytes):
        raise FetchError(f"{url} has {total} bytes, expected {remote.size_bytes}", hint="the file was replaced there")
    remote.check_size(total or 0)
    return start, total


def _receive(
    remote: Remote, response: requests.Response, part: Path, start: int, total: int | None, progress: Progress
) -> None:
    done = start
    with part.open("r+b" if start else "wb") as file:
        file.truncate(start)
        file.seek(start)
        progress(done, total)
        for chunk in response.iter_content(_CHUNK):
            done += len(chunk)
            remote.check_size(done)
            file.write(chunk)
            progress(done, total)
    if total is not None and done < total:
        raise _TryAgainError(f"cut off after {done} of {total} bytes")
    if total is not None and done > total:
        drop(part)
        raise _TryAgainError(f"sent {done} bytes instead of {total}")


def _copy(remote: Remote, part: Path, progress: Progress, extra_bytes: int) -> Got:
    """Take a file from a folder that the index configuration points to."""
    source = Path(unquote(urlsplit(remote.url).path))
    try:
        total = source.stat().st_size
        remote.check_size(total)
        check_space(part.parent, total + extra_bytes)
        progress(0, total)
        shutil.copyfile(source, part)
    except OSError as error:
        raise FetchError(f"cannot copy {source}: {error.strerror or error}") from error
    progress(total, total)
    return Got(joined=False)


def _standing(part: Path, hash_known: bool) -> tuple[int, str | None, int | None]:
    """Return how much of ``part`` can be continued, the version it is of, and its whole size: 0 to start over."""
    try:
        note: Any = json.loads(_sidecar(part).read_bytes())
    except (OSError, ValueError):
        return 0, None, None
    validator, whole = (note.get("validator"), note.get("total")) if isinstance(note, dict) else (None, None)
    whole = whole if isinstance(whole, int) else None
    if isinstance(validator, str):
        return _size(part), validator, whole
    # Without a version only the hash can tell a spliced file, and only the size that it may be the same one.
    return (_size(part), None, whole) if hash_known and whole is not None else (0, None, None)


def _stated_sha256(response: requests.Response) -> str | None:
    for answer in (*response.history, response):
        stated = answer.headers.get("X-Linked-ETag", "").strip('"')
        if re.fullmatch(r"[0-9a-f]{64}", stated):
            return str(stated)
    return None


def _remember(part: Path, response: requests.Response, total: int | None) -> None:
    etag = response.headers.get("ETag", "")
    # A weak ETag does not promise the same bytes, so it cannot vouch for a range.
    validator = etag if etag.startswith('"') else response.headers.get("Last-Modified")
    _sidecar(part).write_text(json.dumps({"validator": validator, "total": total}), encoding="utf-8")


def _retry_after(response: requests.Response) -> float | None:
    seconds = _number(response.headers.get("Retry-After"))
    return None if seconds is None else float(seconds)


def _number(text: str | None) -> int | None:
    return int(text) if text and re.fullmatch(r"[0-9]{1,18}", text) else None


def _sidecar(part: Path) -> Path:
    return part.with_name(part.name + ".json")


def _size(part: Path) -> int:
    return os.stat(part).st_size if part.exists() else 0
