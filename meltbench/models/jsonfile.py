"""Files of JSON that came with a model: written by other tools, so untrusted."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from meltbench.errors import ModelDamaged, UserError

if TYPE_CHECKING:
    from pathlib import Path

_AGAIN = "build or fetch the model again"


def read_object(path: Path, max_bytes: int) -> dict[str, Any]:
    """The JSON object that a file of at most ``max_bytes`` holds.

    UserError where it cannot be read, ModelDamaged where it is too large or holds anything else.
    """
    try:
        with path.open("rb") as file:
            content = file.read(max_bytes + 1)
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror or error}", hint="give a whole model's folder") from error
    if len(content) > max_bytes:
        raise ModelDamaged(f"{path} is larger than {max_bytes / 2**20:g} MiB", hint="it is no such file of a model's")
    try:
        found = json.loads(content)
    except (ValueError, RecursionError) as error:
        raise ModelDamaged(f"{path} is not JSON: {error}", hint=_AGAIN) from None
    if not isinstance(found, dict):
        raise ModelDamaged(f"{path} is not a JSON object", hint=_AGAIN)
    return found
