"""What turns texts into tokens and messages into texts, taken from the model that a folder is built of."""

from __future__ import annotations

import contextlib
import json
import os
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from meltbench.errors import MissingExtra, UserError
from meltbench.models.jsonfile import read_object
from meltbench.models.mlc.template import conv_template
from meltbench.models.mlc.tokenizer import tokenizer_json
from meltbench.models.mlc.weights import MAX_CONFIG_BYTES, FolderSource, GgufSource

if TYPE_CHECKING:
    from pathlib import Path

TOKENIZER = "tokenizer.json"
_MAX_TOKENIZER_BYTES = 64 << 20


@dataclass(frozen=True)
class Words:
    """How texts become tokens: the text of a tokenizer.json, and MLC's conversation template, None where there is none.

    ``bos`` and ``eos``: the tokens that begin a text and end an answer, None where nobody says.
    """

    tokenizer: str
    conv: dict[str, Any] | None
    bos: int | None
    eos: int | list[int] | None


def words_of(source: GgufSource | FolderSource, given: Path | None) -> Words:
    """The words of a model; ``given``: a tokenizer.json in place of its own.

    Raises UserError, ModelDamaged or MissingExtra.
    """
    if isinstance(source, GgufSource):
        says, where = source.says, str(source.path)
        text = _read(given) if given else tokenizer_json(says, where)
        names = says("tokenizer.ggml.tokens")
        bos, eos = says("tokenizer.ggml.bos_token_id"), says("tokenizer.ggml.eos_token_id")
        ends = [one for one in (eos, says("tokenizer.ggml.eot_token_id")) if isinstance(one, int)]
        listed = enumerate(names) if isinstance(names, list) else ()
        known = {number: name for number, name in listed if isinstance(name, str)}
        jinja = says("tokenizer.chat_template")
    else:
        text = _read(given or source.path / TOKENIZER)
        bos, eos = source.config.get("bos_token_id"), source.config.get("eos_token_id")
        ends = [one for one in (eos if isinstance(eos, list) else [eos]) if isinstance(one, int)]
        known, jinja = _named(text), _template_of(source.path)
    begin = _begins(text)
    prefix = (bos, known[bos]) if isinstance(bos, int) and bos in known else None
    conv = None
    if isinstance(jinja, str):
        # A template that writes the first token itself means it to be there, whatever the tokenizer does.
        wanted = prefix if prefix and (bos in begin or "bos_token" in jinja) else None
        conv = conv_template(jinja, sorted(set(ends)), wanted, known.get(ends[0], "") if ends else "")
    return Words(text, conv, bos if isinstance(bos, int) else None, sorted(set(ends)) or None)


def _read(path: Path) -> str:
    try:
        if path.stat().st_size > _MAX_TOKENIZER_BYTES:
            raise UserError(f"{path} is larger than {_MAX_TOKENIZER_BYTES >> 20} MiB", hint="it is no tokenizer")
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"cannot read {path}: {error}", hint="give --tokenizer tokenizer.json") from None
    try:
        from tokenizers import Tokenizer
    except ImportError:
        raise MissingExtra("the package tokenizers", "mlc") from None
    try:
        Tokenizer.from_str(text)
        json.loads(text)
    except Exception as error:  # noqa: BLE001  the package raises nothing narrower
        raise UserError(f"{path} is no tokenizer: {str(error)[:200]}", hint="give a tokenizer.json") from None
    return text


def _named(text: str) -> dict[int, str]:
    """Special tokens by their number."""
    return {one["id"]: one["content"] for one in json.loads(text).get("added_tokens") or ()}


def _begins(text: str) -> set[int]:
    """Tokens that the tokenizer puts before every text. The package checks no field that it does not use."""
    after = json.loads(text).get("post_processor")
    special = after.get("special_tokens") if isinstance(after, dict) else None
    ids = [one.get("ids") for one in special.values() if isinstance(one, dict)] if isinstance(special, dict) else []
    return {number for one in ids if isinstance(one, list) for number in one if isinstance(number, int)}


def _template_of(folder: Path) -> str | None:
    apart = folder / "chat_template.jinja"
    if apart.is_file():
        return _text(apart)
    beside = folder / "tokenizer_config.json"
    found = read_object(beside, MAX_CONFIG_BYTES).get("chat_template") if beside.is_file() else None
    return found if isinstance(found, str) else None


def _text(path: Path) -> str | None:
    with contextlib.suppress(OSError, UnicodeDecodeError):
        return path.read_text(encoding="utf-8") if os.path.getsize(path) < 1 << 20 else None
    return None
