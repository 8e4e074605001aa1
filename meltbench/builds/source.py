"""llama.cpp's source at one known state: inside the source package of llama-cpp-python on the Python index."""

from __future__ import annotations

import subprocess
import sys
import tarfile
import tempfile
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING

from meltbench import paths
from meltbench.errors import FetchError
from meltbench.models.index import pip_failed

if TYPE_CHECKING:
    from collections.abc import Callable

_PIP_DEADLINE_S = 1800.0
_MAX_BYTES = 1 << 30
_MAX_MEMBERS = 50_000
# Documents, sample vocabularies and tests: three quarters of the bytes, and no program is made of them.
_LEFT_OUT = frozenset({"benches", "docs", "examples", "media", "models", "tests", ".github"})


@dataclass(frozen=True)
class Source:
    """A source package of the index, pinned by its hash. ``inside``: the folder in it that is built."""

    package: str
    version: str
    sha256: str
    inside: str

    @property
    def label(self) -> str:
        """What the programs call the state of their source: it came without a commit."""
        return f"{self.package}-{self.version}"

    def archive(self, say: Callable[[str], None]) -> Path:
        """The package as it was published; fetched by pip, and so from the user's own index, when it is not cached."""
        path = paths.cache_dir() / "builds" / "sources" / f"{self.sha256}.tar.gz"
        if path.is_file() and paths.sha256_of(path) == self.sha256:
            return path
        say(f"fetching the source of {self.label}")
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=path.parent, prefix=".fetch-") as work:
            self._download(Path(work)).replace(path)
        return path

    def _download(self, work: Path) -> Path:
        # With its hash pip checks the bytes before anything in them is run; it then asks the package for its name.
        wanted = work / "wanted.txt"
        wanted.write_text(f"{self.package}=={self.version} --hash=sha256:{self.sha256}\n")
        command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-input", "--disable-pip-version-check"]
        command += ["--no-deps", "--no-binary", self.package, "--require-hashes", "--requirement", str(wanted)]
        try:
            done = subprocess.run(
                [*command, "--dest", str(work)],
                capture_output=True, text=True, errors="replace", timeout=_PIP_DEADLINE_S, check=False,
            )  # fmt: skip
        except (OSError, subprocess.TimeoutExpired) as error:
            raise FetchError(
                f"pip cannot fetch {self.label}: {error}", hint="check the network and the pip settings"
            ) from error
        if "DO NOT MATCH THE HASHES" in done.stderr:
            hint = "nothing of it was run; do not trust that index"
            raise FetchError(f"{self.label} on the index is not the one that was pinned", hint=hint)
        if done.returncode:
            raise pip_failed(self.label, done.stderr, instead="give an engine: --engine PATH")
        found = [path for path in sorted(work.glob("*.tar.gz")) if paths.sha256_of(path) == self.sha256]
        if not found:
            raise FetchError(f"pip brought another file than {self.label}", hint="check the pip settings")
        return found[0]

    def unpack(self, archive: Path, folder: Path) -> Path:
        """Unpack what is built into ``folder``. Raises FetchError for an archive that cannot or must not be."""
        try:
            with tarfile.open(archive) as bundle:
                members = [member for member in bundle.getmembers() if self._wanted(member.name)]
                if not members or len(members) > _MAX_MEMBERS or sum(m.size for m in members) > _MAX_BYTES:
                    raise FetchError(f"{archive} does not hold the source of {self.label}")
                bundle.extractall(folder, members, filter="data")
        except (EOFError, tarfile.TarError) as error:
            raise FetchError(f"{archive} cannot be unpacked: {error}", hint="delete it, and try again") from None
        return folder / self.inside

    def _wanted(self, name: str) -> bool:
        path = PurePosixPath(name)
        if not path.is_relative_to(self.inside):
            return False
        below = path.relative_to(self.inside).parts
        return not below or below[0] not in _LEFT_OUT


LLAMA_CPP = Source(
    "llama-cpp-python",
    "0.3.36",
    "832db0699007f1be95a7e41ef12e88926b02ba836461e36a36372db2760c1a2e",
    "llama_cpp_python-0.3.36/vendor/llama.cpp",
)
