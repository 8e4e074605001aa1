"""Reads the items of a workload: a JSONL file, one prompt or conversation a line."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Any

from meltbench.errors import DefinitionError, UserError
from meltbench.records import SPANS

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

_MAX_ITEMS_BYTES = 64 << 20
_MAX_STOPS = 64
_NAME = re.compile(r"[^\x00-\x1f\x7f]{1,60}")
_ITEM_KEYS = {"id", "prompt", "messages", "max_tokens", "answer", "choices", "group", "stop", "point"}


def read_items(path: Path) -> tuple[dict[str, Any], ...]:
    """Every item of a file, checked, each with an ``id``.

    Raises UserError where there is no such file, DefinitionError that names the first line that is wrong.
    """
    if not path.is_file():
        raise UserError(f"no such file: {path}", hint="a workload of one's own is a JSONL file: one item a line")
    if path.stat().st_size > _MAX_ITEMS_BYTES:
        raise UserError(f"{path} is larger than {_MAX_ITEMS_BYTES >> 20} MiB", hint="split it")
    items = tuple(_read_items(path))
    if not items:
        raise DefinitionError(f"{path} has no items", hint='write lines such as {"id": "a", "prompt": "Hello"}')
    ids = [item["id"] for item in items]
    if len(set(ids)) != len(ids):
        twice = next(i for i in ids if ids.count(i) > 1)
        raise DefinitionError(f"{path}: id {twice!r} stands twice", hint="give every item an id of its own")
    if len({"point" in item for item in items}) > 1:
        raise DefinitionError(f"{path}: some items have a point and some have none", hint="give each of them one")
    return items


def _read_items(path: Path) -> Iterator[dict[str, Any]]:
    try:
        lines = path.read_text(encoding="utf-8-sig").split("\n")
    except UnicodeDecodeError as error:
        raise DefinitionError(f"{path} is not UTF-8 at byte {error.start}", hint="save it as UTF-8") from None
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        where = f"{path}:{number}"
        try:
            item = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise DefinitionError(f"{where} is not JSON: {error}", hint="one JSON object a line") from None
        if not isinstance(item, dict):
            raise DefinitionError(f"{where} is not an object", hint='write {"prompt": "..."}')
        yield _item(item, where, number)


def _item(item: dict[str, Any], where: str, number: int) -> dict[str, Any]:
    if re.search("[\ud800-\udfff]", json.dumps(item, ensure_ascii=False)):
        raise DefinitionError(f"{where} holds half of a character (a lone surrogate)", hint="write the whole character")
    if unknown := sorted(set(item) - _ITEM_KEYS):
        raise DefinitionError(f"{where}: unknown key {unknown[0]!r}", hint=f"known: {', '.join(sorted(_ITEM_KEYS))}")
    if ("prompt" in item) == ("messages" in item):
        raise DefinitionError(f"{where} needs either prompt or messages", hint='write {"prompt": "Hello"}')
    if "prompt" in item and not (isinstance(item["prompt"], str) and item["prompt"]):
        raise DefinitionError(f"{where}: prompt is not a text", hint='write {"prompt": "Hello"}')
    if "messages" in item and not _are_messages(item["messages"]):
        hint = 'write "messages": [{"role": "user", "content": "Hello"}]'
        raise DefinitionError(f"{where}: messages are not role and content pairs", hint=hint)
    asked = item.get("max_tokens", 1)
    if not isinstance(asked, int) or isinstance(asked, bool) or not 1 <= asked <= 1_000_000:
        raise DefinitionError(f"{where}: max_tokens is not a count", hint="give 1 to 1000000")
    _check_answer(item, where)
    _check_names(item, where)
    name = item.get("id", f"line{number}")
    if not isinstance(name, str | int) or isinstance(name, bool) or name == "":
        raise DefinitionError(f"{where}: id is neither a text nor a number", hint='write {"id": "a", ...}')
    return {**item, "id": str(name)}


def _check_answer(item: dict[str, Any], where: str) -> None:
    """What is right must be one of the choices, where there are some: told by its number from 0, or by its text."""
    choices, answer = item.get("choices"), item.get("answer")
    if answer is None and choices is not None:
        raise DefinitionError(f"{where}: choices without an answer", hint="give its number, the first being 0")
    if answer is None:
        item.pop("answer", None)  # null is how many tools write that there is none
    if choices is not None:
        if not (_are_texts(choices) and len(choices) > 1 and "prompt" in item):
            raise DefinitionError(f"{where}: choices are two texts or more, after a prompt", hint='write ["yes", "no"]')
        if isinstance(answer, str) and answer in choices:
            answer = choices.index(answer)
        if not isinstance(answer, int) or isinstance(answer, bool) or not 0 <= answer < len(choices):
            raise DefinitionError(f"{where}: answer is none of the choices", hint="give its number, the first being 0")
        item |= {"choices": [f" {one.strip()}" for one in choices], "answer": answer}
    elif answer is not None and not (isinstance(answer, str | int | float) and not isinstance(answer, bool)):
        raise DefinitionError(f"{where}: answer is neither a text nor a number", hint='write "answer": "Paris"')
    elif isinstance(answer, str) and not answer.strip():
        hint = "write what is right, or leave answer out of an item that is not to be scored"
        raise DefinitionError(f"{where}: answer is empty", hint=hint)


def _check_names(item: dict[str, Any], where: str) -> None:
    """What an item is counted with, and what ends its answer."""
    for key in ("group", "point"):
        if key in item and not (isinstance(item[key], str) and _NAME.fullmatch(item[key])):
            raise DefinitionError(f"{where}: {key} is no name of 1 to 60 characters", hint="leave it out")
        if item.get(key) in SPANS:
            raise DefinitionError(f"{where}: {key} {item[key]!r} is the name of a phase", hint="take another name")
    if "stop" in item and not _are_texts(item["stop"]):
        raise DefinitionError(f"{where}: stop is not a list of texts", hint='write "stop": ["\\n\\n"]')
    if len(item.get("stop", ())) > _MAX_STOPS:
        raise DefinitionError(f"{where}: stop has {len(item['stop'])} texts, at most {_MAX_STOPS}", hint="give fewer")


def _are_texts(value: object) -> bool:
    return isinstance(value, list) and bool(value) and all(isinstance(one, str) and one for one in value)


def _are_messages(messages: object) -> bool:
    return (
        isinstance(messages, list)
        and bool(messages)
        and all(
            isinstance(m, dict) and set(m) == {"role", "content"} and all(isinstance(v, str) for v in m.values())
            for m in messages
        )
    )


def check_conversations(path: Path, items: tuple[dict[str, Any], ...]) -> None:
    """Refuse items that are no conversations: user and assistant by turns after an optional system message.

    The assistant's turns are authored, so that whatever an engine answers, each one sees the same tokens.
    """
    for item in items:
        roles = [str(message["role"]) for message in item.get("messages", ())]
        talk = roles[1:] if roles[:1] == ["system"] else roles
        if len(talk) % 2 == 0 or talk != (["user", "assistant"] * len(talk))[: len(talk)]:
            raise DefinitionError(
                f"{path}: {item['id']!r} is no conversation: its turns are {', '.join(roles[:6]) or 'a prompt'}",
                hint="write messages of user, assistant, user ..., the last of the user, after at most one of system",
            )


def turns(item: dict[str, Any]) -> int:
    """How often the user speaks in a conversation."""
    return sum(message["role"] == "user" for message in item["messages"])
