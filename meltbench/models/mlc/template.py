"""MLC's conversation template of a model, worked out from the Jinja template that the model came with.

MLC writes a prompt as system, role, content and separators in a fixed order. What a Jinja template writes around marked
messages gives those parts; other conversations then show whether both write the same. If they do not, there is none.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

from meltbench.errors import MissingExtra

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    Message = Mapping[str, str]

_MAX_CHARS = 65_536
_SYSTEM, _ASKED, _SAID, _AGAIN = "\x01system\x01", "\x01asked\x01", "\x01said\x01", "\x01again\x01"
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
    MissingExtra without jinja2. Templates are of others: they run in Jinja's sandbox.
    """
    write = _writer(jinja, "" if bos is None else bos[1], eos)
    begins = [] if bos is None else [bos[0]]
    found = _parts(write)
    if found is None:
        return None
    found |= {"system_prefix_token_ids": begins, "stop_token_ids": list(stop_ids), "stop_str": []}
    # Where a system message cannot stand in MLC's form, the template has no place for one.
    fixed = found["system_template"].replace("{system_message}", found["system_message"])
    for one in (found, found | {"system_template": fixed, "system_message": ""}):
        cases = [case for case in _CASES if takes_system(one) or case[0]["role"] != "system"]
        if all(written(one, case) == write(case) for case in cases):
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


def _writer(jinja: str, bos: str, eos: str) -> Any:
    """What the model's own template makes of messages, without the first token; None where it refuses them."""
    try:
        from jinja2 import TemplateError
        from jinja2.sandbox import ImmutableSandboxedEnvironment
    except ImportError:
        raise MissingExtra("the package jinja2", "mlc") from None

    def refuse(message: str) -> None:
        raise TemplateError(message)

    class Room(ImmutableSandboxedEnvironment):
        """The sandbox, without the operators that make a huge value of a short word."""

        intercepted_binops = frozenset({"*", "**"})

        def call_binop(self, context: object, operator: str, left: object, right: object) -> object:
            del context
            raise TemplateError(f"no {operator} between {type(left).__name__} and {type(right).__name__}")

    def write(messages: Sequence[Message]) -> str | None:
        try:
            if len(jinja) > _MAX_CHARS:
                return None
            room = Room(trim_blocks=True, lstrip_blocks=True)
            text = room.from_string(jinja).render(
                messages=[dict(one) for one in messages],
                add_generation_prompt=True,
                bos_token=bos,
                eos_token=eos,
                raise_exception=refuse,
            )
        except (TemplateError, ArithmeticError, LookupError, TypeError, ValueError, AttributeError, RuntimeError):
            return None  # among the last is what nests too deeply
        return text.removeprefix(bos) if bos else text

    return write


def _parts(write: Any) -> dict[str, Any] | None:
    """The pieces around marked messages, under MLC's names; None where the template does not show them."""
    asked, said = {"role": "user", "content": _ASKED}, {"role": "assistant", "content": _SAID}
    whole = write([asked, said, {"role": "user", "content": _AGAIN}])
    with_system = write([{"role": "system", "content": _SYSTEM}, asked])
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
