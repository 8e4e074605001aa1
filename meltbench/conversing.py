"""Whether a model has a form for conversations, and what it means for a run where it has none.

llama.cpp's server, and those made of it, write messages as ChatML where a GGUF file brings no chat template
(common_chat_templates_init in its common/chat.cpp), and say so in a log alone.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from meltbench.errors import UserError
from meltbench.models.gguf import Gguf

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from meltbench.plan import Plan
    from meltbench.ticket import LocalModel

_OWN = "--chat-template"  # and --chat-template-file: a recipe that names the form itself


def check_thinking(plan: Plan, model: LocalModel) -> None:
    """Refuse to switch the thinking of a model whose template surely has no such switch; others may have one."""
    head, thinking = model.header, plan.work.workload.thinking
    if thinking is None or not isinstance(head, Gguf) or _names_one(plan):
        return
    if head.has_chat_template and head.template_thinks is not False:
        return
    lacks = "says nothing of thinking" if head.has_chat_template else "is missing"
    raise UserError(
        f"thinking = {thinking} would change nothing: the chat template of {model.model.name} {lacks}",
        hint="leave out thinking, or take a model that thinks",
    )


def untemplated(plan: Plan, model: LocalModel, asks: Iterable[Mapping[str, Any]]) -> str:
    """How messages came to be a text where the model does not say how; empty where it does, or has none to write."""
    head = model.header
    if not isinstance(head, Gguf) or head.has_chat_template or _names_one(plan):
        return ""
    if plan.recipe is None or plan.recipe.mode != "server" or all(ask["messages"] is None for ask in asks):
        return ""
    return f"{model.model.name} has none, the engine wrote the messages in a form of its own (llama.cpp: ChatML)"


def _names_one(plan: Plan) -> bool:
    return plan.recipe is not None and any(word.startswith(_OWN) for part in plan.recipe.arguments for word in part)
