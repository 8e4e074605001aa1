"""What a plain model is given: arrays of files, or arrays made to a shape; and the inferences of a run."""

from __future__ import annotations

import json
import math
import random
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

from meltbench.engines.prompts import Ask
from meltbench.errors import UserError
from meltbench.models.hashes import file_sha256

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from meltbench.definition import Workload
    from meltbench.records import Role

_SHAPE = re.compile(r"(?P<name>.{1,200}):(?P<dims>\d{1,9}(?:x\d{1,9}){0,15})", re.ASCII)
_ENDINGS = (".npy", ".npz")
_MAX_ELEMENTS = 1 << 28
_MAX_FILES = 1000
_MAX_BYTES = 1 << 30


def shapes(parts: Sequence[str]) -> dict[str, list[int]]:
    """The shapes of ``images:1x3x224x224``, by the name of the input. Raises UserError for what is none."""
    found: dict[str, list[int]] = {}
    for part in parts:
        match = _SHAPE.fullmatch(part)
        dims = [int(one) for one in match["dims"].split("x")] if match else []
        if match is None or 0 in dims or math.prod(dims) > _MAX_ELEMENTS:
            hint = f"write --set shape=images:1x3x224x224, at most {_MAX_ELEMENTS} elements"
            raise UserError(f"shape = {part[:80]!r} is no shape of an input", hint=hint)
        if match["name"] in found:
            raise UserError(f"shape names the input {match['name']} twice", hint="leave one out")
        found[match["name"]] = dims
    return found


def items(work: Workload) -> tuple[dict[str, Any], ...]:
    """What the model is given, one item a set of inputs: the files of a folder, or one that is made.

    The ``prompt`` of an item is JSON for the engine. A file goes by its content into the identity of the workload.
    """
    if work.inputs is None:
        return ({"id": "made", "prompt": json.dumps({"shapes": shapes(work.shape)}, sort_keys=True)},)
    given = Path(work.inputs).expanduser().absolute()
    files = sorted(one for one in given.iterdir() if one.suffix in _ENDINGS) if given.is_dir() else [given]
    if not files or files[0].suffix not in _ENDINGS or not all(one.is_file() for one in files):
        raise UserError(f"{given} holds no arrays", hint="give a .npz, a .npy, or a folder of them")
    if len(files) > _MAX_FILES or sum(one.stat().st_size for one in files) > _MAX_BYTES:
        most = f"{_MAX_FILES} files of {_MAX_BYTES >> 30} GiB together"
        raise UserError(f"{given} holds {len(files)} files, more than can be given", hint=f"give at most {most}")
    return tuple(
        {"id": one.name, "prompt": json.dumps({"path": str(one)}), "sha256": file_sha256(one)} for one in files
    )


def files(found: Sequence[dict[str, Any]]) -> tuple[Path, ...]:
    """The files of arrays that these items are."""
    return tuple(path for item in found if (path := _path(item)) is not None)


def elsewhere(found: Sequence[dict[str, Any]], where: Mapping[Path, str]) -> tuple[dict[str, Any], ...]:
    """The items with their files as they lie on another target."""
    return tuple(
        item if (path := _path(item)) is None else item | {"prompt": json.dumps({"path": where[path]})}
        for item in found
    )


def _path(item: Mapping[str, Any]) -> Path | None:
    path = json.loads(item["prompt"]).get("path")
    return None if path is None else Path(path)


def asks(found: Sequence[dict[str, Any]], work: Workload, seed: int) -> list[Ask]:
    """The inferences of a run: the warm-up, then every item in each pass, in an order of each pass's own."""
    rng = random.Random(seed)  # noqa: S311  (a workload must repeat; nothing here is secret)
    order: list[tuple[Role, dict[str, Any]]] = [("warmup", found[i % len(found)]) for i in range(work.warmup)]
    order += [("timed", item) for _ in range(work.repeat) for item in rng.sample(list(found), len(found))]
    return [
        Ask(f"{at:05d}", item["id"], role, n_out=0, seed=seed, ignore_eos=False, prompt=item["prompt"])
        for at, (role, item) in enumerate(order)
    ]
