"""What another tool measured, as a run of ours.

Its own numbers stand under names of its own (``TOOL_...``), each with the tool's definition as its method. Under our
names stands only what follows from what it recorded by our definitions; what it does not tell is None with a reason.
Nothing here opens a file.
"""

from __future__ import annotations

import hashlib
import json
import re
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, NamedTuple, TypeGuard

import meltbench
from meltbench.errors import UserError
from meltbench.measure import measure_run
from meltbench.measure.validity import reason, state
from meltbench.records import RunRecord, bare
from meltbench.spec import digest

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from meltbench.measure import RunInputs
    from meltbench.records import Measure, Phase, Reason, Request, Score, Series, SourceStatus

MAX_RUNS = 10_000
MAX_BYTES = 64 << 20  # of one file; the parts of a parsed one take many times that
# What a run is known by: where a tool does not tell one of these, that is said instead of left out.
_WANTED = {
    *("load_s", "ttft_s", "decode_tps", "prefill_tps", "wall_s", "energy_j", "mean_power_w", "peak_rss_bytes"),
    "max_temp_c",
}
_OF_SPAN = ("output_tps", "total_tps", "requests_per_s")
_OURS = re.compile(r"^(?:observed on the target|samples_ns)")
_UNKNOWN_START = "19700101T000000Z"
_MAX_NS = 8 * 10**18  # in 2223: a time that is later is none, and what lasts until then has its end in 64 bits too
_MAX_SPAN_NS = 10**18  # of a run, some 30 years
_MAX_S = 1e9
_HUGE = 1e300
_MAX_TEXT = 4096
_MAX_SAMPLES, _MAX_SAMPLE_NS = 10_000, 10**15
_QUANTISATION = re.compile(
    r"(?:^| )(I?Q\d\w{0,12}|B?F16|F32|MXFP4\w{0,8}|TQ\d_\d)(?: - (Small|Medium|Large))?(?: |$)", re.ASCII
)


class File(NamedTuple):
    """A file: its path as the user gave it, and its bytes."""

    path: str
    raw: bytes

    @property
    def name(self) -> str:
        """The last part of its path."""
        return self.path.replace("\\", "/").rpartition("/")[2]


@dataclass(frozen=True)
class Imported:
    """One run of another tool. ``part``: which of those that its files hold. Times are ns since 1970, None where no
    file tells them; those of ``requests``, ``phases`` and ``series`` are told by ``clock``.

    ``identity``: what makes it this very run where its file holds others too, or grows; else it is its files.
    ``model`` and ``runner`` are None where no engine is known to have been under test. ``said``: what else the tool
    wrote down of the run, kept as it was.
    """

    tool: str
    files: tuple[File, ...]
    part: str
    started_ns: int | None
    ended_ns: int | None
    device: str
    workload: Mapping[str, Any]
    clock: str
    identity: bytes = b""
    model: Mapping[str, Any] | None = None
    runner: Mapping[str, Any] | None = None
    knobs: Mapping[str, Any] = field(default_factory=dict)
    said: Mapping[str, Any] = field(default_factory=dict)
    rep: int = 0
    requests: Sequence[Request] = ()
    scores: Sequence[Score] = ()
    phases: Sequence[Phase] = ()
    series: Sequence[Series] = ()
    sources: Sequence[SourceStatus] = ()
    measures: Sequence[Measure] = ()
    reasons: Sequence[Reason] = ()
    notes: tuple[str, ...] = ()

    @property
    def validity(self) -> str:
        """The worst state any of its reasons gives."""
        return state(self.reasons)

    @property
    def digest(self) -> str:
        """Of what makes it this run: the same files are the same run, also when they have grown by others."""
        held = hashlib.sha256(self.identity)
        if not self.identity:
            for file in sorted(self.files, key=lambda one: one.name):
                held.update(hashlib.sha256(file.raw).digest())
            held.update(self.part.encode())
        held.update(self.tool.encode())
        return held.hexdigest()

    def run_id(self, attempt: int) -> str:
        """Its start, or 1970 where nobody tells it, and six digits of its digest; others by the ``attempt``, where
        another run has the same six."""
        stamp = _UNKNOWN_START
        if self.started_ns is not None:
            stamp = f"{datetime.fromtimestamp(self.started_ns // 10**9, UTC):%Y%m%dT%H%M%SZ}"
        return f"{stamp}-{self.digest[6 * attempt : 6 * attempt + 6]}"

    def manifest(self, not_kept: Mapping[str, str]) -> dict[str, Any]:
        """What the run is. ``not_kept``: files that are too large to be kept with it, and why."""
        what = ["imported", self.tool, self.device, self.model, self.runner, self.workload["name"], dict(self.knobs)]
        return {
            "plan_hash": None,
            "cell_key": digest(what),
            "started_at": _iso(self.started_ns),
            "ended_at": _iso(self.ended_ns),
            "rep": self.rep,
            "round": 0,
            "spec": None,
            "knobs": dict(self.knobs),
            "device": _DEVICE | {"name": self.device},
            "calibrations": {},
            "model": None if self.model is None else _MODEL | dict(self.model),
            "runner": None if self.runner is None else _RUNNER | dict(self.runner),
            "workload": {"sha256": None, "version": 1, "items": None} | dict(self.workload),
            "outcome": "done",
            "failure": None,
            "failure_log": None,
            "versions": {"meltbench": meltbench.__version__, "probe": None, "protocol": None},
            "conditions": None,
            "imported": {
                "from": self.tool,
                "digest": self.digest,
                "part": self.part,
                "files": {file.name: hashlib.sha256(file.raw).hexdigest() for file in self.files},
                "not_kept": dict(not_kept),
                "clock": self.clock,
                "notes": list(self.notes),
                "said": dict(self.said),
            },
        }

    def record(self, name: str, not_kept: Mapping[str, str]) -> RunRecord:
        """The run as the store keeps it."""
        return RunRecord(
            run_id=name,
            manifest=self.manifest(not_kept) | {"run_id": name, "validity": self.validity},
            series=list(self.series),
            sources=list(self.sources),
            phases=list(self.phases),
            requests=list(self.requests),
            measures=list(self.measures),
            reasons=list(self.reasons),
            scores=list(self.scores),
        )


_DEVICE = {
    **dict.fromkeys(("profile", "identity", "board", "sha256", "adb_port", "workdir")),
    "target": "log",
    "address": "",
    "checked": "unverified",
}
_MODEL = dict.fromkeys(
    ("file", "sha256", "bytes", "n_params", "bits_per_weight", "architecture", "quantisation", "descends_from")
)
_RUNNER = {
    "version": "unknown",
    "sha256": None,
    "url": None,
    "relayed": False,
    "unseen": "",
    "unloaded": "",
    "accelerator": "unknown",
}


def measured(
    tool: str,
    inputs: RunInputs,
    theirs: Sequence[Measure] = (),
    more: Iterable[tuple[str, str]] = (),
    *,
    clock: str = "",
) -> tuple[list[Measure], list[Reason]]:
    """Our measures of what was recorded, the tool's own beside them, and the reasons; ``more`` of these by code.

    A measure that nothing is known of is left out, unless a run is known by it. ``theirs`` go before ours of one name.
    ``clock``: what timed the requests. Where they stood in time is not known, so neither is what takes the time between
    them.
    """
    made, reasons, _ = measure_run(inputs)
    named = {_key(one) for one in theirs}
    kept = []
    for one in made:
        if _key(one) in named or (clock and one.name in _OF_SPAN):
            continue
        if one.value is not None:
            kept.append(replace(one, method=_OURS.sub(clock, one.method)) if clock else one)
        elif one.phase == "run" and bare(one.name) in _WANTED and (not inputs.signals or "no_re" in str(one.reason)):
            kept.append(replace(one, reason=f"not_recorded: {tool} does not tell it"))
        elif one.phase == "run" and bare(one.name) in _WANTED:
            kept.append(one)
    found = [one for one in reasons if inputs.signals or one.code != "no_thermal_sensor"]
    codes = {one.code for one in found}
    found += [reason(code, detail) for code, detail in dict(more).items() if code not in codes]
    return [*kept, *theirs], found


def _key(one: Measure) -> tuple[str, str, str, str]:
    return one.name, one.stat, one.phase, one.source


def json_of(file: File, text: bytes | None = None, line: int = 1) -> Any:
    """A JSON text of a file, from ``line`` on. Raises UserError that names the line where it is none."""
    try:
        return json.loads((file.raw if text is None else text).decode("utf-8-sig"))
    except json.JSONDecodeError as error:
        raise UserError(f"{file.path}, line {line + error.lineno - 1}: not JSON: {error.msg}") from error
    except UnicodeDecodeError as error:
        at = line + (file.raw if text is None else text).count(b"\n", 0, error.start)
        raise UserError(f"{file.path}, line {at}: not UTF-8 text") from error
    except (ValueError, RecursionError) as error:
        raise UserError(f"{file.path}, line {line}: a number too long, or too many brackets in one another") from error


def json_lines(file: File, most: int = MAX_RUNS) -> list[tuple[int, Any]]:
    """The number and the value of each line of JSONL that is not blank. Raises UserError as ``json_of``."""
    lines = [(at, line) for at, line in enumerate(file.raw.split(b"\n"), 1) if line.strip()]
    if len(lines) > most:
        raise UserError(f"{file.path} has more than {most} lines", hint="cut it into parts")
    return [(at, json_of(file, line, at)) for at, line in lines]


def number(value: object) -> float | None:
    """A finite number, also one in digits; else None."""
    if isinstance(value, str) and len(value) <= 40:
        try:
            value = float(value)
        except ValueError:
            return None
    return float(value) if _is_number(value) else None


def _is_number(value: object) -> TypeGuard[int | float]:
    """Whether it is a number that a float can hold; NaN and infinity are none."""
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < _HUGE


def positive(value: object) -> float | None:
    """A finite number above 0; else None: tools write 0 or -1 for what they do not know."""
    found = number(value)
    return found if found is not None and found > 0 else None


def seconds(value: object) -> float | None:
    """A time of at least 1 ns and at most 30 years, s; else None: nothing that is shorter or longer was measured."""
    found = number(value)
    return found if found is not None and 1e-9 <= found <= _MAX_S else None


def samples_ns(where: str, given: object) -> list[int]:
    """Times of repetitions, ns. Raises UserError where it is no list of such."""
    if not isinstance(given, list) or len(given) > _MAX_SAMPLES:
        raise UserError(f"{where}: samples_ns is no list of at most {_MAX_SAMPLES} times")
    found = [count(one) for one in given]
    if any(one is None or not 0 < one < _MAX_SAMPLE_NS for one in found):
        raise UserError(f"{where}: samples_ns holds what is no time in ns")
    return [one for one in found if one is not None]


def ended(path: str, start_ns: int, now_ns: int) -> int:
    """The end of what was put one behind the other. Raises UserError where no table could hold it."""
    if now_ns - start_ns > _MAX_SPAN_NS:
        raise UserError(
            f"{path}: all that it tells of took more than 30 years", hint="take out the times that are wrong"
        )
    return now_ns


def count(value: object) -> int | None:
    """A whole number from 0 that a table can hold; else None."""
    found = number(value)
    return int(found) if found is not None and found == int(found) and 0 <= found < 2**53 else None


def word(value: object) -> str:
    """A text of at most 200 characters; empty for anything else."""
    return value.strip()[:200] if isinstance(value, str) else ""


def facts(found: object) -> dict[str, Any]:
    """What a table of a file says in texts and numbers; what is neither, or not finite, is left out."""
    if not isinstance(found, dict):
        return {}
    return {
        word(key): value[:_MAX_TEXT] if isinstance(value, str) else value
        for key, value in found.items()
        if isinstance(value, str | bool) or _is_number(value)
    }


def part_of(value: object, *names: str) -> Any:
    """What lies below these keys; None where there is nothing."""
    for name in names:
        value = value.get(name) if isinstance(value, dict) else None
    return value


def utc_ns(text: object) -> int | None:
    """A date and time as ns since 1970; one that names no zone is taken as UTC. None where it is none."""
    if not isinstance(text, str) or len(text) > 40:
        return None
    try:
        when = datetime.fromisoformat(text)
        seconds = (when if when.tzinfo else when.replace(tzinfo=UTC)).timestamp()
    except (ValueError, OverflowError):
        return None
    return within(round(seconds * 1e9))


def within(ns: int) -> int | None:
    """The time where a table can hold it; else None."""
    return ns if 0 < ns < _MAX_NS else None


def quantisation(text: str) -> str | None:
    """The quantisation in llama.cpp's words for a model.

    >>> quantisation("llama 7B Q4_K - Medium")
    'Q4_K_M'
    """
    found = _QUANTISATION.search(text)
    return None if found is None else found[1] + (f"_{found[2][0]}" if found[2] else "")


def _iso(ns: int | None) -> str | None:
    return None if ns is None else datetime.fromtimestamp(ns / 1e9, UTC).isoformat(timespec="milliseconds")
