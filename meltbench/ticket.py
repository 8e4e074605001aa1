"""The ticket of a run: all that its evidence alone does not tell, written before anything is started.

With it a run can be collected by another controller, and measured again from its journal years later.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import meltbench
from meltbench.definition import ASKED, BY_TOKEN
from meltbench.models.hashes import file_sha256
from meltbench.models.header import Said, files_of, read_header, sha256_of_model
from meltbench.plan import PROTOCOL
from meltbench.serving import relayed
from meltbench.spec import Scalar, digest

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from meltbench.models import Header, Model
    from meltbench.plan import Cell, Plan
    from meltbench.targets.facts import Facts

# Of the slowest device that anybody would measure.
_LOADED_S, _SLOW_PREFILL_TPS, _SLOW_DECODE_TPS = 60.0, 10.0, 1.0


@dataclass(frozen=True)
class LocalModel:
    """A model on this machine, checked: where it lies, what it says of itself; ``there``: its path on another target.

    ``files``: itself, or what is in its folder; none of a model that only a server has, whose ``path`` is its name.
    """

    model: Model
    path: str
    sha256: str | None
    bytes: int
    header: Header
    files: tuple[Path, ...] = ()
    there: str = ""

    @classmethod
    def of(cls, model: Model, path: Path | None) -> LocalModel:
        """Read what lies there. ModelDamaged where it is not whole; ``path`` None: a server has it."""
        if path is None:
            return cls(model, model.name, None, 0, Said())
        files, sha256 = files_of(path), sha256_of_model(path)
        size = sum(one.stat().st_size for one in files)
        return cls(model, str(path), sha256, size, read_header(path, model.format), files)

    @property
    def weights(self) -> str:
        """The largest of its files, by its path on the target."""
        if not self.files or not Path(self.path).is_dir():
            return self.at
        return f"{self.at}/{max(self.files, key=lambda one: one.stat().st_size).name}"

    @property
    def at(self) -> str:
        """Its path on the target."""
        return self.there or self.path


def cell_key(plan: Plan, facts: Facts, knobs: dict[str, Scalar], model: LocalModel | None) -> str:
    """What must be equal for two runs to be repetitions of each other."""
    made = [[one.name, one.value] for one in plan.profile.setting]
    return digest(
        {
            "protocol": PROTOCOL,
            "model": None if model is None else model.sha256 or str(model.model.source),
            "engine": None if plan.engine is None else plan.engine.sha256,
            "arguments": None if plan.recipe is None else plan.recipe.arguments,
            "workload": [plan.work.sha256, plan.work.workload.identity()],
            "command": list(plan.spec.command),
            "device": facts.identity,
            "os": [facts.os, facts.kernel],
            "knobs": knobs | _of_files(plan, knobs),
        }
        | ({"settings": made} if made else {})
        | ({} if plan.reference is None else {"reference": plan.reference.sha256 or str(plan.reference.source)})
    )


def _of_files(plan: Plan, knobs: Mapping[str, Scalar]) -> dict[str, Scalar]:
    """Knobs that name a file, by what it holds: where it lies changes nothing."""
    known = {} if plan.recipe is None else plan.recipe.knobs
    named = {name: str(knobs[name]) for name, knob in known.items() if knob.file and knobs.get(name, "none") != "none"}
    return {name: file_sha256(Path(path)) for name, path in named.items()}


def expected_s(plan: Plan, asks: Sequence[Mapping[str, Any]]) -> float:
    """How long the measured part of a run takes on a slow device, for one that is waited for in silence."""
    work = plan.work.workload
    if work.kind == "sustained":
        return _LOADED_S + work.limit_s
    if work.kind not in ASKED:
        return work.window_s if work.kind == "idle" else work.timeout_s
    if work.kind in BY_TOKEN:
        return _LOADED_S + len(asks) / _SLOW_DECODE_TPS
    n_in, n_out = (sum(int(ask[key] or 0) for ask in asks) for key in ("n_in", "n_out"))
    return _LOADED_S + n_in / _SLOW_PREFILL_TPS + n_out / _SLOW_DECODE_TPS + work.pause_s * len(asks)


def described(asks: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """What is kept of what was asked; the bytes of a request are evidence already."""
    out = []
    for ask in asks:
        entry = dict(ask)
        for key in ("tokens", "messages", "prompt", "stop", "allowed", "thinks", "target"):
            del entry[key]
        out.append(entry)
    return out


def refused_ticket(plan: Plan, cell: Cell, run_id: str, facts: Facts) -> dict[str, Any]:
    """The ticket of a run that is not started because its model is damaged: what was said of it, nothing of it."""
    return ticket(plan, cell, run_id, facts, plan.knobs | dict(cell.knobs), None, [])


def _described(said: Model, found: LocalModel | None) -> dict[str, Any]:
    """What a record tells of a model: what was said of it, and what it is once its file was read."""
    row: dict[str, Any] = {
        "name": said.name,
        "sha256": said.sha256,
        "file": said.filename,
        "bytes": said.size_bytes,
        "n_params": None,
        "bits_per_weight": None,
        "architecture": None,
        "quantisation": said.quantisation,
        "descends_from": said.descends_from,
    }
    if found is not None:
        row |= {
            "sha256": found.sha256,
            "file": found.path.rsplit("/", 1)[-1],
            "bytes": found.bytes,
            "n_params": found.header.n_params,
            "bits_per_weight": found.header.bits_per_weight,
            "architecture": found.header.architecture,
        }
    return row


def ticket(
    plan: Plan,
    cell: Cell,
    run_id: str,
    facts: Facts,
    knobs: dict[str, Scalar],
    model: LocalModel | None,
    asks: list[dict[str, Any]],
) -> dict[str, Any]:
    """The ticket of a run that is to be started: what is known of it before."""
    return {
        "run_id": run_id,
        "plan_hash": plan.hash,
        "cell_key": cell_key(plan, facts, knobs, model),
        "started_at": datetime.now(UTC).isoformat(timespec="milliseconds"),
        "rep": cell.rep,
        "round": cell.rep if cell.knobs else 0,
        "spec": asdict(plan.spec),
        "knobs": knobs,
        "device": {
            "name": plan.known.name,
            "profile": plan.known.profile_name,
            "identity": facts.identity,
            "board": facts.board,
            "sha256": plan.device_sha256,
            "workdir": plan.known.workdir,
            "target": plan.known.place.kind,
            "address": plan.known.place.address,
            "adb_port": plan.known.place.port,
            "checked": plan.profile.checked,
        },
        "sources": [asdict(source) for source in plan.profile.source],
        "totals": [asdict(total) for total in plan.profile.total],
        "max_power_w": plan.profile.max_power_w,
        "battery": None if plan.profile.battery is None else asdict(plan.profile.battery),
        "model": None if plan.model is None else _described(plan.model, model),
        "runner": None
        if plan.recipe is None or plan.engine is None
        else {
            "name": plan.spec.runner,
            "sha256": plan.engine.sha256,
            "engine": plan.engine.name,
            "version": plan.engine.version,
            "protocol": plan.recipe.protocol,
            "mode": plan.recipe.mode,
            "url": plan.engine.url or None,
            "relayed": bool(plan.engine.url) and relayed(plan.engine.url, knobs),
            "unseen": plan.unseen,
            "unloaded": plan.unloaded,
        },
        "workload": {"name": plan.work.name, "sha256": plan.work.sha256, **plan.work.workload.told()},
        "asks": asks,
        "versions": {"meltbench": meltbench.__version__, "protocol": PROTOCOL},
        "conditions": facts.conditions(),
    }
