"""MLC's conversation template of a model, worked out from the Jinja template that the model came with.

MLC writes a prompt as system, role, content and separators in a fixed order. What a Jinja template writes around marked
messages gives those parts; other conversations then show whether both write the same. If they do not, there is none.
"""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from meltbench.errors import InternalError, MissingExtra

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    Message = Mapping[str, str]

_MAX_CHARS = 65_536
_CPU_S, _WALL_S, _MEMORY_BYTES = 10, 120.0, 512 << 20
_SYSTEM, _ASKED, _SAID, _AGAIN = "\x01system\x01", "\x01asked\x01", "\x01said\x01", "\x01again\x01"
_MARKED: tuple[tuple[Message, ...], ...] = (
    (
        {"role": "user", "content": _ASKED},
        {"role": "assistant", "content": _SAID},
        {"role": "user", "content": _AGAIN},
    ),
    ({"role": "system", "content": _SYSTEM}, {"role": "user", "content": _ASKED}),
)
_CASES: tuple[tuple[Message, ...], ...] = (
    ({"role": "user", "content": "Hello"},),
    ({"role": "system", "content": "Be brief."}, {"role": "user", "content": "One?"}),
    (
        {"role": "user", "content": "One?"},
        {"role": "assistant", "content": "Two."},
        {"role": "user", "content": "Three?"},
        {"role": "assistant", "content": "Four."},
        {"role": "user", "content": "Five?"},
    ),
    (
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "One?"},
        {"role": "assistant", "content": "Two."},
        {"role": "user", "content": "Three?"},
    ),
)


def conv_template(jinja: str, stop_ids: Sequence[int], bos: tuple[int, str] | None, eos: str) -> dict[str, Any] | None:
    """MLC's ``conv_template`` that writes what ``jinja`` writes; None where none does.

    ``bos``: the token that a conversation begins with, and its text, which the template may write itself.
    MissingExtra without jinja2. Templates are of others: they run in Jinja's sandbox, and in a process that may take
    little time and memory; one that takes more has no ``conv_template``.
    """
    asked = [*_MARKED, *_CASES]
    start = "" if bos is None else bos[1]
    texts = [None if one is None else one.removeprefix(start) for one in _texts(jinja, asked, start, eos)]
    return matching(texts, stop_ids, bos)


def matching(
    texts: Sequence[str | None], stop_ids: Sequence[int], bos: tuple[int, str] | None
) -> dict[str, Any] | None:
    """The ``conv_template`` of a template that makes these texts, without the first token, of the conversations shown
    to it; None where there is none."""
    found = _parts(*texts[: len(_MARKED)])
    if found is None:
        return None
    begins = [] if bos is None else [bos[0]]
    found |= {"system_prefix_token_ids": begins, "stop_token_ids": list(stop_ids), "stop_str": []}
    # Where a system message cannot stand in MLC's form, the template has no place for one.
    fixed = found["system_template"].replace("{system_message}", found["system_message"])
    for one in (found, found | {"system_template": fixed, "system_message": ""}):
        cases = zip(_CASES, texts[len(_MARKED) :], strict=True)
        if all(written(one, case) == text for case, text in cases if takes_system(one) or case[0]["role"] != "system"):
            return one
    return None


def takes_system(conv: Mapping[str, Any]) -> bool:
    """Whether a conversation may begin with a system message."""
    return "{system_message}" in conv["system_template"]


def written(conv: Mapping[str, Any], messages: Sequence[Message]) -> str:
    """The prompt that MLC makes of messages (Conversation.as_prompt of mlc_llm), ready for the answer."""
    system, talk = conv["system_message"], list(messages)
    if talk and talk[0]["role"] == "system":
        system, talk = talk[0]["content"], talk[1:]
    text = conv["system_template"].replace("{system_message}", system)
    begun, seps = text != "", [*conv["seps"], *conv["seps"]]
    for place, message in enumerate(talk):
        role, content = message["role"], message["content"]
        bare = place == 0 and begun and not conv["add_role_after_system_message"]
        text += "" if bare else conv["roles"][role] + conv["role_content_sep"]
        text += conv["role_templates"][role].replace(f"{{{role}_message}}", content) + seps[role == "assistant"]
    return str(text + conv["roles"]["assistant"] + conv["role_empty_sep"])


def _texts(jinja: str, conversations: Sequence[Sequence[Message]], bos: str, eos: str) -> list[str | None]:
    """What the model's own template makes of conversations; None where it refuses them, or takes too much."""
    none: list[str | None] = [None] * len(conversations)
    if importlib.util.find_spec("jinja2") is None:
        raise MissingExtra("the package jinja2", "mlc")
    if len(jinja) > _MAX_CHARS:
        return none
    limits = {"cpu_s": _CPU_S, "memory_bytes": _MEMORY_BYTES}
    ask = {"jinja": jinja, "conversations": conversations, "bos": bos, "eos": eos, **limits}
    # Not as a module, which would import all of meltbench; -P: beside the script lie modules with names of others.
    argv = [sys.executable, "-P", "-W", "ignore", str(Path(__file__).with_name("render.py"))]
    try:
        done = subprocess.run(argv, input=json.dumps(ask).encode(), capture_output=True, timeout=_WALL_S, check=False)
    except subprocess.TimeoutExpired:
        return none
    if done.returncode > 0:
        last = (done.stderr.decode("utf-8", "replace").strip().splitlines() or ["no message"])[-1]
        raise InternalError(f"the process that writes by a template fails: {last[:200]}", hint="please report it")
    found: list[str | None] = none if done.returncode < 0 else json.loads(done.stdout)
    return found


def _parts(whole: str | None, with_system: str | None) -> dict[str, Any] | None:
    """The pieces around marked messages, under MLC's names; None where the template does not show them."""
    if whole is None or any(whole.count(mark) != 1 for mark in (_ASKED, _SAID, _AGAIN)):
        return None
    before, rest = whole.split(_ASKED)
    between, rest = rest.split(_SAID)
    after, end = rest.split(_AGAIN)
    # Of what stands between answer and question, what also stands before the first one belongs to the question.
    user = _common_end(before, after)
    sep_user = _common_start(between, end)
    assistant, opened = between.removeprefix(sep_user), end.removeprefix(sep_user)
    default = before.removesuffix(user)
    system_template, system = default, ""
    if with_system is not None and with_system.count(_SYSTEM) == 1:
        head, tail = with_system.split(_SYSTEM)
        tail = tail.split(_ASKED)[0].removesuffix(user)
        inner = default.removeprefix(head).removesuffix(tail)
        if head + inner + tail == default:
            system_template, system = f"{head}{{system_message}}{tail}", inner
    if assistant != opened:  # what only an empty turn has stands apart in MLC's form
        role = _common_start(assistant, opened)
        content, empty = assistant.removeprefix(role), opened.removeprefix(role)
        user_role = user.removesuffix(content)
        if user_role + content != user:
            return None
    else:
        role, content, empty, user_role = assistant, "", "", user
    return {
        "name": "from the model's own template",
        "system_template": system_template,
        "system_message": system,
        "add_role_after_system_message": True,
        "roles": {"user": user_role, "assistant": role},
        "role_templates": {"user": "{user_message}", "assistant": "{assistant_message}"},
        "seps": [sep_user, after.removesuffix(user)],
        "role_content_sep": content,
        "role_empty_sep": empty,
    }


def _common_start(one: str, other: str) -> str:
    return os.path.commonprefix([one, other])  # noqa: RUF071  characters are what is meant


def _common_end(one: str, other: str) -> str:
    return _common_start(one[::-1], other[::-1])[::-1]
