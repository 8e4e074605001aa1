"""Every error meltbench raises on purpose.

    MeltbenchError
      UserError           the caller's move: a name, a value, a file of theirs          exit 2
        UnknownName         a name that is not in the catalogue; knows the nearest ones
        ManyDevices         a name that several devices have; knows them
        DefinitionError     a TOML or JSONL file that does not say what it must
        DoesNotFit          the model needs more memory than the device has
        MissingExtra        an optional part is not installed; names the extra
      RunFailed           the run is stored as failed, with its reason                  exit 1
        ModelDamaged        its file is corrupt, truncated, or not the one that was promised
      DeviceError         the target's move: unreachable, busy, denied, full            exit 1
        DeadlineExceeded    a call took longer than it was given (transient)
        LinkLost            the way to the target was cut, or its other end is silent (transient)
        HostKeyError        the target's host key is unknown, or not the one that is known
        WrongDevice         another board answers at the address of this one
        LeaseLost           another controller took the target over
        TargetBusy          another run holds the target (transient)
      StoreError          the store's folder: unwritable, full, damaged                 exit 1
      FetchError          a download: unreachable, truncated, wrong hash                exit 1
      BuildFailed         an engine could not be compiled; names the log                exit 1
      Interrupted         Ctrl-C, after everything was put back                         exit 130
      InternalError       our bug: what happened and where to report it                 exit 70

Each says what happened in its message, whose move it is by its class, and the next step in ``hint``.
``transient`` tells whether the same call may succeed later unchanged; only transient errors are retried.
"""

from __future__ import annotations

import difflib
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping


_SHOWN = 12  # of the names that are known: an error is a line
_NEAREST, _LEAST_PART = 3, 3


class MeltbenchError(Exception):
    """Something meltbench can explain in one line."""

    exit_code = 1
    transient = False

    def __init__(self, message: str, *, hint: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint

    def __str__(self) -> str:
        return f"{self.message}; {self.hint}" if self.hint else self.message


class UserError(MeltbenchError):
    """The command line, a definition or a file of the caller's is wrong."""

    exit_code = 2


class UnknownName(UserError):
    """A device, model, runner, workload or key that nobody knows."""

    def __init__(self, kind: str, name: str, known: Iterable[str], *, hint: str | None = None) -> None:
        names = sorted(set(known))
        near = _nearest(name, names)
        if hint is None:
            more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
            all_known = f"known: {', '.join(names[:_SHOWN]) or 'none'}{more}"
            hint = f"did you mean {', '.join(near)}?" if near else all_known
        shown = name if len(name) <= 80 else f"{name[:79]}…"
        super().__init__(f"unknown {kind} {shown!r}", hint=hint)
        self.nearest = near


def _nearest(name: str, names: list[str]) -> list[str]:
    """Those that may have been meant: spelt nearly so, or with that as a part of a longer name."""
    alike = difflib.get_close_matches(name, names, n=_NEAREST, cutoff=0.6)
    longer = [one for one in names if len(name) >= _LEAST_PART and name in one]
    return list(dict.fromkeys([*alike, *longer]))[:_NEAREST]


class ManyDevices(UserError):
    """A name stands for several devices. ``choices``: by the name that stands for one alone, what it is."""

    def __init__(self, message: str, choices: Mapping[str, str]) -> None:
        names = ", ".join(list(choices)[:_SHOWN])
        super().__init__(f"{message}: {names}", hint="name one of them")
        self.choices = choices


class DefinitionError(UserError):
    """A definition file is malformed: says the file, the key, and what would be valid."""


class DoesNotFit(UserError):
    """The model, its KV cache and a reserve exceed the memory the device has available."""


class MissingExtra(UserError):
    """An optional part is not installed."""

    def __init__(self, what: str, extra: str) -> None:
        super().__init__(f"{what} is not installed", hint=f"pip install 'meltbench[{extra}]'")


class RunFailed(MeltbenchError):
    """The run ended without a usable result; it is stored with its reason."""


class ModelDamaged(RunFailed):
    """The model's file is corrupt, truncated, or not the one that was promised."""


class DeviceError(MeltbenchError):
    """The target cannot be used as it is."""


class DeadlineExceeded(DeviceError):
    """A call to the target took longer than it was given."""

    transient = True


class LinkLost(DeviceError):
    """The way to the target was cut, or its other end has gone silent. What runs there goes on."""

    transient = True


class HostKeyError(DeviceError):
    """The host key of a target is unknown, or not the one that is known, or revoked. ``fingerprint``: as ssh says it,
    SHA256:... ``state``: an unknown key may be asked about, a changed one is accepted by its fingerprint alone, a
    revoked one never."""

    def __init__(
        self,
        message: str,
        *,
        fingerprint: str,
        state: Literal["unknown", "changed", "revoked"],
        hint: str | None = None,
    ) -> None:
        super().__init__(message, hint=hint)
        self.fingerprint, self.state = fingerprint, state


class WrongDevice(DeviceError):
    """Another board answers at the address of this one."""


class LeaseLost(DeviceError):
    """Another controller took the target over."""


class TargetBusy(DeviceError):
    """Another run holds the target. ``lease``: what the target said of it, where it was asked for its lease."""

    transient = True

    def __init__(self, message: str, *, hint: str | None = None, lease: dict[str, Any] | None = None) -> None:
        super().__init__(message, hint=hint)
        self.lease = lease


class StoreError(MeltbenchError):
    """The data folder cannot be read or written."""


class FetchError(MeltbenchError):
    """A download failed or did not bring what was promised."""


class BuildFailed(MeltbenchError):
    """An engine could not be compiled: the compiler's words, and where its log is."""


class Interrupted(MeltbenchError):
    """The user pressed Ctrl-C; everything was put back first."""

    exit_code = 130


class InternalError(MeltbenchError):
    """A state that meltbench should never reach."""

    exit_code = 70
