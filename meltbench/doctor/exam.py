"""What an examination holds, and the words in which it is told."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator

    from meltbench.records import Status
    from meltbench.targets.facts import Facts
    from meltbench.targets.inventory import Known
    from meltbench.targets.notes import Verdict
    from meltbench.targets.profile import Profile, Source

# What a profile's [advice] may speak of beside its sources, and the cases of each.
CASES: dict[str, tuple[str, ...]] = {
    "supply": ("weak",),
    "heat": ("warm", "hot", "throttled", "blind"),
    "governor": ("slow", "lowest"),
    "power_mode": ("any",),
    "clocks": ("capped",),
    "total": ("none", "denied"),
    "pages": ("large",),
    "swap": ("used",),
    "memory": ("low",),
    "accelerator": ("idle",),
}
# The cases of a source.
SOURCE_CASES = (
    *("denied", "absent", "again", "gated", "error", "unparsed", "implausible", "uncalibrated"),
    *("under_voltage", "frequency_capped", "thermal_slowdown", "soft_temp_limit"),
    *("under_voltage_since_boot", "frequency_capped_since_boot"),
    *("thermal_slowdown_since_boot", "soft_temp_limit_since_boot"),
)


@dataclass(frozen=True)
class Finding:
    """``what`` was looked at, what was ``seen``, what it means for runs, and what to do: lines to read and to paste."""

    what: str
    seen: str
    verdict: Verdict = "ok"
    mend: str = ""


@dataclass(frozen=True)
class Look:
    """What a source gave in a second or two of being read as a run reads it. ``last``: by series its last value in
    its unit, of a counter how fast it ran."""

    source: Source
    status: Status
    detail: str = ""
    last: dict[str, tuple[float, str]] = field(default_factory=dict)


@dataclass(frozen=True)
class Link:
    """How a device was reached. ``latency_s``: of the fastest of a few empty commands. ``offset_s``: how far its wall
    clock is ahead of ours, give or take ``offset_u_s``. ``user``, ``groups``: who we are there."""

    latency_s: float
    offset_s: float | None = None
    offset_u_s: float = 0.0
    user: str = ""
    uid: int | None = None
    groups: tuple[str, ...] = ()


@dataclass(frozen=True)
class Folder:
    """Our folder on a device, and the file system it lies on. ``why``: why the probe could not be put or started."""

    path: str
    mount: str = ""
    kind: str = ""
    options: tuple[str, ...] = ()
    free_bytes: int | None = None
    why: str = ""


@dataclass(frozen=True)
class Exam:
    """All that was seen of a device. What was not come to, because something before it failed, is None or empty.

    ``failed``: why it was not reached, and what to do. ``fits``: a profile that knows the board better than its own.
    ``running``: the run under way there, "" for none. ``ended``: runs that wait to be collected. ``total``: what the
    energy would be made of, and ``total_why`` why of nothing; ``relative``: its sensor has a gain that nobody knows.
    ``cuda``: the toolkit of an engine that was compiled there for its GPU. ``settable``: by factor that is a file,
    whether we may write it. ``texts``: files by kernel path, with their status; ``answers``: what programs printed.
    """

    known: Known
    profile: Profile
    failed: tuple[str, str] | None = None
    link: Link | None = None
    folder: Folder | None = None
    facts: Facts | None = None
    fits: str | None = None
    running: str = ""
    holder: str | None = None
    ended: tuple[str, ...] = ()
    looks: tuple[Look, ...] = ()
    looked_why: str = ""
    total: str = ""
    total_why: str = ""
    total_partial: str = ""
    texts: dict[str, tuple[str, str]] = field(default_factory=dict)
    answers: dict[str, str] = field(default_factory=dict)
    page_bytes: int | None = None
    settable: dict[str, bool] = field(default_factory=dict)
    relative: bool = False
    cuda: str | None = None

    @property
    def wrong_board(self) -> bool:
        """Whether another board answered than the one that is meant."""
        known = self.known.identity
        return self.facts is not None and known is not None and known != self.facts.identity

    def text(self, path: str) -> str | None:
        """The text of a file; None where it could not be read."""
        status, text = self.texts.get(path, ("absent", ""))
        return text if status == "ok" else None

    def matching(self, begin: str, end: str) -> Iterator[tuple[str, str, str]]:
        """Path, status and text of the files whose path begins and ends so, as a person counts them."""
        for path in sorted(self.texts, key=lambda one: [len(one), one]):
            if path.startswith(begin) and path.endswith(end):
                yield path, *self.texts[path]

    def look(self, reader: str) -> Look | None:
        """The look at the source of that reader."""
        return next((one for one in self.looks if one.source.reader == reader), None)

    def advice(self, topic: str, case: str, otherwise: str = "") -> str:
        """What the profile says of it, else what is said of any device."""
        text = self.profile.advice.get(topic, {}).get(case, otherwise).strip("\n")
        user = self.link.user if self.link is not None and self.link.user else "$USER"
        return text.replace("{user}", user).replace("{name}", self.known.name)

    def values(self, ending: str = "", begin: str = "") -> dict[str, float]:
        """The last values of all series whose name begins and ends so."""
        return {
            name: value
            for look in self.looks
            for name, (value, _) in look.last.items()
            if name.startswith(begin) and name.endswith(ending)
        }


def count(number: int, one: str, more: str = "") -> str:
    """A number with its word."""
    return f"{number} {one if number == 1 else more or one + 's'}"


def number_of(text: Any) -> float | None:
    """The number that a text is, or None."""
    try:
        return float(str(text).strip())
    except ValueError:
        return None
