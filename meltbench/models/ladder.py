"""A ladder of quantisations of one model: the files, and their names in the user's catalogue.

A rung is called as what it was made from with its own type: smollm2-135m-q4_1-q8_0 was Q4_1 before it was Q8_0.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from meltbench.errors import ModelDamaged, UserError
from meltbench.models import own
from meltbench.models.catalogue import Artifact, Entry, artifacts, catalogue
from meltbench.models.gguf import read_gguf
from meltbench.models.quantize import Made, check_type, descent, made_of, requantise
from meltbench.models.store import ensure
from meltbench.paths import cache_dir

if TYPE_CHECKING:
    from collections.abc import Sequence

    from meltbench.models.gguf import Gguf
    from meltbench.models.names import Model
    from meltbench.watch import Watch


@dataclass(frozen=True)
class Rung:
    """One quantisation: ``name`` is what --model takes; ``anew`` is False where the very file was there already."""

    name: str
    made: Made
    anew: bool


def climb(model: Model, types: Sequence[str], out: Path | None, watch: Watch) -> list[Rung]:
    """Requantise ``model`` to each of ``types`` into ``out`` (default: in the cache) and put them into the catalogue.

    UserError: a type that cannot be made or that the model has already, a name that is taken. Nothing is written then.
    """
    kinds = list(dict.fromkeys(check_type(kind) for kind in types))
    if model.format != "gguf":
        raise UserError(f"{model.name} is no GGUF file", hint="name a model that has one")
    source = ensure(model, watch.fetched, watch.say)
    head = read_gguf(source)
    if head.file_type in kinds:
        raise UserError(f"{model.name} is {head.file_type} already", hint="leave that type out")
    folder = (out or cache_dir() / "models" / "made").expanduser().absolute()
    rungs = [_planned(model, kind, folder) for kind in kinds]
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"cannot write {folder}: {error.strerror or error}", hint="give another --out") from error
    return [_rung(model, source, head, kind, *planned, watch) for kind, planned in zip(kinds, rungs, strict=True)]


def _planned(model: Model, kind: str, folder: Path) -> tuple[str, Path, bool]:
    """Its name, its file, and whether the catalogue has it."""
    base = re.sub(r"[^A-Za-z0-9._-]+", "-", Path(model.name).name.removesuffix(".gguf")).lstrip(".-_") or "model"
    name = f"{base}-{kind.lower()}"
    path = folder / f"{name}.gguf"
    _, known = artifacts(catalogue()).get(name, (None, None))
    if known is None or known.path is None:
        own.check_name(name)
        return name, path, False
    if Path(known.path).expanduser() != path:
        hint = f"leave --out out for that one, or edit {own.path()}"
        raise UserError(f"{name} is in the catalogue already, at {known.path}", hint=hint)
    return name, path, True


def _rung(model: Model, source: Path, head: Gguf, kind: str, name: str, path: Path, known: bool, watch: Watch) -> Rung:
    if there := _is_there(model, head, kind, path):
        made = made_of(head, path, kind)
    else:
        if path.exists() and not known:
            raise UserError(f"{path} is there already, and not ours", hint="give another --out, or move it away")
        told = partial(watch.fetched, what=f"requantising to {kind}")
        made = requantise(source, model.name, kind, path, told)
    if made.fell_back:
        watch.say(f"{name}: {made.fell_back} tensors became F16, for their rows are no multiple of a block of {kind}")
    if not known:
        artifact = Artifact(
            name=name,
            path=str(path),
            quantisation=kind,
            bits_per_weight=round(made.bits_per_weight, 4),
            descends_from=made.descends_from,
        )
        title = None if model.entry else model.title or None
        own.add(Entry(model.entry or name, title=title, artifact=(artifact,)))
    return Rung(name, made, not there)


def _is_there(model: Model, head: Gguf, kind: str, path: Path) -> bool:
    """Whether the file is one that was made of this very model as this type."""
    if not path.is_file():
        return False
    try:
        found = read_gguf(path)
    except (UserError, ModelDamaged):
        return False
    return found.file_type == kind and found.descends_from == descent(model.name, head)
