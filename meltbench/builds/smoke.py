"""Whether an engine can be executed on a device, asked once before anything is measured; and why not"""

from __future__ import annotations

import json
import re
import shlex
from dataclasses import asdict, dataclass
from pathlib import PurePosixPath
from typing import TYPE_CHECKING

from meltbench import elf, paths
from meltbench.builds.variants import TARGETS, best_variant, missing
from meltbench.errors import DeadlineExceeded, DeviceError, UserError
from meltbench.spec import digest
from meltbench.targets import Completed, printable

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping
    from pathlib import Path

    from meltbench.deadline import Deadline
    from meltbench.targets import Transport
    from meltbench.targets.facts import Facts

_SAID_BYTES = 64 << 10
_WITHIN_S = 20
_SIGILL, _SIGSYS = 4, 31

# The program by its path, its first bytes, and what the kernel of the device would do with it. Where there is a
# `timeout` a program that hangs is ended there too, not only no longer waited for.
_LOOK = 'p=$(command -v -- "$1") && [ -f "$p" ] && cd / && head -c "$2" -- "$p"'
_KERNEL = """ls -lnd -- "$1"
grep -hs '^magic' /proc/sys/fs/binfmt_misc/*
grep -s noexec /proc/self/mounts
exit 0"""
_START = 'within=$1; shift; if command -v timeout >/dev/null 2>&1; then exec timeout "$within" "$@"; fi; exec "$@"'

_version = re.compile(r"version: *([^\r\n]{1,80})")
_too_old = re.compile(r"version [`'\u2018]?(GLIBC|GLIBCXX|CXXABI)_([0-9.]{1,12})['\u2019]? not found")
_no_library = re.compile(
    r"(?:error while loading shared libraries: |Error loading shared library |library \")"
    r"([A-Za-z0-9._+/-]{1,200})(?:: cannot open shared object file|: No such file|\" not found)"
)
_wrong_library = re.compile(r"error while loading shared libraries: ([^\n]{1,200})")
# Which package or folder has a library, by the beginning of its name.
_LIBRARIES = (
    (("libllama", "libggml", "libmtmd"), "it is the engine's own: give its whole folder or archive"),
    (("libcuda.so", "libnvidia-ml"), "it is part of NVIDIA's driver, which is not installed there"),
    (("libcud", "libcublas", "libnccl"), "it is CUDA's: install its runtime of that version"),
    (("libvulkan",), "install the package libvulkan1, and a Vulkan driver"),
    (("libgomp",), "install the package libgomp1"),
    (("libcurl",), "install the package libcurl4"),
    (("libssl", "libcrypto"), "install the package libssl3, or of the version that it names"),
    (("libstdc++",), "install the package libstdc++6"),
    (("libhip", "librocm", "librocblas", "libhsa"), "it is ROCm's: install ROCm of that version"),
)  # fmt: skip


@dataclass(frozen=True)
class Smoke:
    """Whether a program ran, what version it says it is, and, where it did not run, why not and what would."""

    ok: bool
    version: str | None = None
    explanation: str | None = None


@dataclass(frozen=True)
class _Case:
    """What there is to judge by."""

    path: str
    done: Completed
    header: elf.Header | None
    kernel: str
    facts: Facts

    @property
    def said(self) -> str:
        return (self.done.stdout[:_SAID_BYTES] + b"\n" + self.done.stderr[:_SAID_BYTES]).decode("utf-8", "replace")


def smoke(
    transport: Transport,
    program: str,
    env: Mapping[str, str],
    facts: Facts,
    deadline: Deadline,
    needs: Iterable[str] = (),
) -> Smoke:
    """Ask a program on a device for its version. ``needs``: what its build's record says the processor must have.

    Raises LinkLost and other DeviceErrors of the way there; that the program cannot run is no error of this function.
    """
    if lacks := missing(needs, facts.cpu_features):
        return Smoke(False, None, f"{program} was built for processors with {', '.join(lacks)}. {_advice(facts)}")
    found = transport.run(["sh", "-c", _LOOK, "sh", program, str(elf.HEAD_BYTES)], deadline)
    if found.code:
        return Smoke(False, None, f"{program} is not on the device")
    header = elf.header_of(found.stdout)
    kernel = transport.run(["sh", "-c", _KERNEL, "sh", program], deadline).stdout.decode("utf-8", "replace")
    if header and not elf.runs_on(header.machine, facts.arch) and not _emulated(header, kernel):
        # A shell would take a program that the kernel refuses for a script.
        return Smoke(False, None, _wrong_machine(program, header, facts))
    words = [*(["env", *(f"{key}={value}" for key, value in env.items())] if env else []), program, "--version"]
    limit = max(1, min(_WITHIN_S, int(deadline.remaining())))
    try:
        done = transport.run(["sh", "-c", _START, "sh", str(limit), *words], deadline.within(limit + 5))
    except DeadlineExceeded:
        return Smoke(False, None, f"{program} --version did not end within {limit} s")
    except DeviceError as error:
        if error.transient:
            raise
        return Smoke(False, None, f"{program} does not start: {error.message}")
    return _judged(_Case(program, done, header, kernel, facts))


def smoked(sha256: str, facts: Facts, ask: Callable[[], Smoke]) -> Smoke:
    """What ``ask`` says, asked once for an engine on a device with its present system.

    Only that it runs is remembered: what was missing may have been installed since.
    """
    if known := remembered(sha256, facts):
        return known
    answer = ask()
    if answer.ok:
        place = _place(sha256, facts)
        place.parent.mkdir(parents=True, exist_ok=True)
        partial = place.with_suffix(".part")
        partial.write_text(json.dumps(asdict(answer)), "utf-8")
        partial.replace(place)
    return answer


def remembered(sha256: str, facts: Facts) -> Smoke | None:
    """What an engine said on a device with its present system, where it ran; None: it was not asked yet."""
    try:
        known = Smoke(**json.loads(_place(sha256, facts).read_text("utf-8")))
    except (OSError, ValueError, TypeError):  # or not written to its end
        return None
    return known if known.ok else None


def _place(sha256: str, facts: Facts) -> Path:
    return paths.state_dir() / "smoke" / f"{digest([sha256, facts.identity, facts.os, facts.kernel])[:32]}.json"


def _judged(case: _Case) -> Smoke:
    said = _version.search(case.said)
    version = printable(said[1]).strip() if said else None
    if case.done.code == 0 or version:
        return Smoke(True, version)
    return Smoke(False, None, _why(case))


def _why(case: _Case) -> str:
    """The reason, from the exit status and the last words; each in the order in which it would come about."""
    code, said = case.done.code, case.said
    signal = -code if code < 0 else code - 128 if 128 < code < 160 else None
    if signal is not None:
        return _by_signal(case, signal)
    if code == 124:
        return f"{case.path} --version did not end within {_WITHIN_S} s"
    if "Permission denied" in said and code == 126:
        return _denied(case)
    # A shell that takes what the kernel refuses for a script stumbles over its first bytes. Busy: still being written.
    if (code == 126 and "busy" not in said) or (case.header and "yntax error" in said):
        return _wrong_machine(case.path, case.header, case.facts)
    if found := _too_old.search(said):
        what = {"GLIBC": "C library (glibc)"}.get(found[1], "C++ library")
        return (
            f"{case.path} needs {found[1]}_{found[2]}, and the {what} of {case.facts.os or 'this system'} is older. "
            "Give an engine built for it, or leave --engine out: those built here need no library"
        )
    if found := _no_library.search(said):
        return f"{case.path} needs {found[1]}, which is not on the device: {_where(found[1])}"
    if found := _wrong_library.search(said):
        return f"{case.path} cannot load a library: {printable(found[1])}"
    if code == 127:
        return _no_loader(case)
    return f"{case.path} --version ended with exit status {code}: {case.done.complaint()}"


def _by_signal(case: _Case, signal: int) -> str:
    if signal == _SIGILL:
        return f"{case.path} stopped at an instruction that this processor does not have. {_advice(case.facts)}"
    if signal == _SIGSYS:
        return f"{case.path} was stopped by the device's filter of system calls (SIGSYS)"
    return f"{case.path} --version was ended by signal {signal}: {case.done.complaint()}"


def _advice(facts: Facts) -> str:
    """Which build this processor can execute."""
    listed = " ".join(facts.cpu_features[:40]) or "nothing that we could read"
    try:
        row = best_variant(facts.arch, facts.cpu_features)
    except UserError as error:
        return f"It lists: {listed}; {error.hint}"
    command = f"meltbench runners build llamacpp --target {row.target.name} --cpu {row.cpu}"
    return f"It lists: {listed}. What runs there: {command}"


def _denied(case: _Case) -> str:
    if "x" not in case.kernel[:10]:  # of the mode; where a mount forbids it, `test -x` says no too
        return f"{case.path} is not marked executable: chmod +x {shlex.quote(case.path)}, on the device"
    mounts = [line.split(" ") for line in case.kernel.splitlines() if line.count(" ") >= 3]
    on = [m[1] for m in mounts if "noexec" in m[3].split(",") and PurePosixPath(case.path).is_relative_to(m[1])]
    if on:
        where = printable(max(on, key=len))
        return (
            f"{case.path} lies on {where}, which is mounted noexec: set another workdir for the device, or remount it"
        )
    return f"{case.path} may not be executed there: a folder above it is closed, or a security policy refuses it"


def _wrong_machine(path: str, header: elf.Header | None, facts: Facts) -> str:
    if header is None:
        return f"{path} is no program of Linux: {facts.arch} cannot execute it"
    if elf.runs_on(header.machine, facts.arch):
        return f"{path} is built for {header.machine}, and the kernel of this {facts.arch} device does not run those"
    fit = next((name for name, target in TARGETS.items() if facts.arch in target.machines), None)
    hint = f"; meltbench runners build llamacpp --target {fit}" if fit else ""
    return f"{path} is built for {header.machine}, and this device is {facts.arch}{hint}"


def _emulated(header: elf.Header, kernel: str) -> bool:
    """Whether the device has an emulator registered for programs of that machine (binfmt_misc, by e_machine)."""
    number = header.number.to_bytes(2, "little").hex()
    return any(word[36:40] == number for word in re.findall(r"^magic ([0-9a-f]{40})", kernel, re.MULTILINE))


def _no_loader(case: _Case) -> str:
    if case.header and case.header.loader:
        system = elf.system_of(case.header.loader) or "another C library than this system's"
        return (
            f"{case.path} is started by {printable(case.header.loader)}, which is not on the device: it was built for "
            f"{system}. Leave --engine out: those built here need none"
        )
    if case.header is None:
        return f"{case.path} is a script, and what its first line names is not on the device"
    return f"{case.path} cannot be started: {case.done.complaint()}"


def _where(library: str) -> str:
    return next(
        (said for names, said in _LIBRARIES if PurePosixPath(library).name.startswith(names)),
        "install the package that has it",
    )
