"""Python environments that were made on a target of pushed wheels (meltbench.packages), beside its push cache."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING

from meltbench.deadline import Deadline
from meltbench.errors import DeviceError, TargetBusy
from meltbench.probe.client import leased
from meltbench.targets import printable
from meltbench.targets.lease import Lease, holder_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    from meltbench.probe.client import Probe
    from meltbench.watch import Watch

_CALL_S = 300.0  # thousands of small files, on an old card
_MAX_PACKAGES, _MAX_NAME = 200, 80
_LINE = re.compile(r"([0-9a-f]{16}(?:\.part)?) (whole|partial) (used|idle) (\d{1,12})(?: (.*))?")
# Which are in use is told by the command lines of all processes. They are named before grep is started, whose own
# command line would be found too.
_LIST = r"""cd -- "$1" 2>/dev/null || exit 0
set -- /proc/[0-9]*/cmdline
four=[0-9a-f][0-9a-f][0-9a-f][0-9a-f]
for venv in *; do
    case ${venv%.part} in $four$four$four$four) ;; *) continue ;; esac
    [ -d "$venv" ] || continue
    state=partial use=idle names=
    [ -e "$venv/whole" ] && state=whole
    grep -qF -- "$PWD/$venv/" "$@" 2>/dev/null && use=used
    kib=$(du -sk -- "$venv") || exit 1
    for info in "$venv"/lib/python*/site-packages/*.dist-info; do
        [ -d "$info" ] || continue
        info=${info##*/}
        names="$names ${info%.dist-info}"
    done
    printf '%s %s %s %s%s\n' "$venv" "$state" "$use" "${kib%%[!0-9]*}" "$names"
done"""
_DROP = 'cd -- "$1" && shift && rm -rf -- "$@"'


@dataclass(frozen=True)
class Venv:
    """An environment: its folder's name, whether all of it was made, its size, the packages in it by name and version,
    and whether a process runs out of it, or somebody who may start one has the target."""

    key: str
    state: str
    bytes: int
    packages: tuple[str, ...]
    in_use: bool


def folder(probe: Probe) -> str:
    """Where the environments of a target lie."""
    return str(PurePosixPath(probe.root).parent / "cache" / "venvs")


def listed(probe: Probe) -> tuple[Venv, ...]:
    """The environments on a target, by their names. Raises DeviceError where it cannot tell."""
    found = _found(probe)
    taken = bool(found) and leased(probe.lease_show()) is not None
    return tuple(replace(one, in_use=one.in_use or taken) for one in found)


def _found(probe: Probe) -> list[Venv]:
    """The same, in use where a process runs out of them, whoever has the target."""
    at = folder(probe)
    done = probe.transport.run(["sh", "-c", _LIST, "sh", at], Deadline.after(_CALL_S))
    lines = done.stdout.decode("utf-8", "replace").split("\n")[:-1]
    found = [_LINE.fullmatch(line) for line in lines]
    if done.code or None in found:
        raise DeviceError(f"{at} of {probe.name} cannot be looked at: {done.complaint()}", hint="look at it there")
    return [_venv(one) for one in found if one is not None]


def _venv(told: re.Match[str]) -> Venv:
    key, state, use, kib, names = told.groups()
    packages = [printable(name)[:_MAX_NAME] for name in (names or "").split(" ") if name]
    return Venv(key, state, int(kib) << 10, tuple(packages[:_MAX_PACKAGES]), use == "used")


def drop(probe: Probe, venvs: Sequence[Venv], watch: Watch) -> tuple[Venv, ...]:
    """Remove those of these that are not in use, and return them. Raises DeviceError where one cannot be removed."""
    if all(one.in_use for one in venvs):
        return ()
    # A run finds its environment, and starts something out of it later: not while the lease is ours.
    try:
        lease = Lease.take(probe, holder_of(Path.cwd()), watch, wait=False)
    except TargetBusy:
        return ()
    with lease:
        idle = {one.key for one in _found(probe) if not one.in_use}
        chosen = tuple(one for one in venvs if one.key in idle and not one.in_use)
        if chosen:
            _remove(probe, [one.key for one in chosen])
        return chosen


def _remove(probe: Probe, keys: Sequence[str]) -> None:
    at = folder(probe)
    done = probe.transport.run(["sh", "-c", _DROP, "sh", at, *keys], Deadline.after(_CALL_S))
    if done.code:
        raise DeviceError(f"{at} of {probe.name}: {done.complaint()}", hint="remove it there by hand")
