"""An import of MELT's as tables and as JSON: its numbers, ours beside them, and in words where they differ."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from meltbench.imports.melt.account import overall
from meltbench.imports.melt.differences import differences
from meltbench.imports.melt.merged import by_module, by_operator, by_work
from meltbench.recorded import summary
from meltbench.records import bare
from meltbench.report.headline import pick
from meltbench.report.sheet import MISSING, Column, Sheet

if TYPE_CHECKING:
    from collections.abc import Sequence

    from meltbench.imports.melt.account import Told
    from meltbench.imports.melt.operators import Operators
    from meltbench.imports.melt.power import Power
    from meltbench.imports.melt.study import Study
    from meltbench.imports.melt.theirs import Costs
    from meltbench.records import Measure

_OURS = ("load_s", "ttft_s", "tpot_s", "prefill_tps", "decode_tps", "engine_decode_tps", "wall_s")
_OF_TOTAL = ("energy_j", "mean_power_w", "j_per_output_token", "j_per_request", "discharge_mah_per_token")
_REQUEST = ("n_out", "ttft_s", "e2e_s", "tpot_s", "prefill_tps", "decode_tps", "engine_decode_tps")
_OF_REQUEST = (*_REQUEST, "energy_j", "energy_u_k2_j", "energy_reason", "detail")


def as_json(study: Study, told: Sequence[Told]) -> dict[str, Any]:
    """What ``--json`` prints; docs/json.md has the keys."""
    return {
        "files": [{"path": path, "kind": kind} for path, kind in study.kinds.items()],
        "notes": study.notes,
        "power": [_power(power) for power in study.power.values()],
        "conversations": [_conversation(one) for one in told],
        "overall": asdict(overall(list(told))) if told else None,
        "operators": [_operators(path, found) for path, found in study.operators],
        "differences": differences(told, [found for _, found in study.operators]),
    }


def _power(power: Power) -> dict[str, Any]:
    return {
        "file": power.name,
        "kind": power.kind,
        "clock": power.clock,
        "rails": list(power.rails),
        "notes": list(power.notes),
        "series": [summary(one) for one in power.series],
    }


def _conversation(told: Told) -> dict[str, Any]:
    conversation, tie = told.conversation, told.ours.tie
    return {
        "iteration": conversation.iteration,
        "conversation": conversation.number,
        "engine": conversation.engine,
        "notes": list(conversation.notes),
        "clocks": {
            "offset_s": None if tie.why else tie.offset_ns / 1e9,
            "bound_s": None if tie.why else tie.bound_s,
            "how": tie.how or tie.why,
        },
        "load": None if told.load is None else {"duration_s": told.load.duration_s, "rails": _whole(told.load.costs)},
        "prompts": _prompts(told),
        "stages": [
            {"kind": one.kind, "n": one.n, "duration_s": one.duration_s, "rails": _whole(one.costs)}
            for one in told.stages
        ],
        "measures": [asdict(one) for one in told.ours.measures],
        "validity": told.ours.validity,
        "reasons": [asdict(one) for one in told.ours.reasons],
    }


def _prompts(told: Told) -> list[dict[str, Any]]:
    ours = {one.item.rpartition("/")[2]: one for one in told.ours.requests}
    out = []
    for prompt, row in zip(told.conversation.prompts, told.rows, strict=True):
        request = ours.get(str(prompt.number))
        theirs: dict[str, Any] = {key: value for key, value in asdict(row).items() if key != "costs"}
        theirs["rails"] = {
            rail: {"energy_pt_mwh": mwh, "discharge_pt_mah": mah} for rail, (mwh, mah) in (row.costs or {}).items()
        }
        mine = None if request is None else {name: getattr(request, name) for name in _OF_REQUEST}
        out.append({"prompt": prompt.number, "melt": theirs, "ours": mine})
    return out


def _whole(costs: Costs) -> dict[str, dict[str, float]]:
    return {rail: {"energy_mwh": mwh, "discharge_mah": mah} for rail, (mwh, mah) in costs.items()}


def _operators(path: str, found: Operators) -> dict[str, Any]:
    return {
        "file": path,
        "engine": found.engine,
        "chunked": found.chunked,
        "unread": found.unread,
        "tensors": found.tensors,
        "melt": {
            "by_operator": [asdict(one) for one in by_operator(found)],
            "by_module": [asdict(one) for one in by_module(found)],
        },
        "ours": [asdict(one) for one in by_work(found)],
    }


def sheets(study: Study, told: Sequence[Told]) -> list[Sheet]:
    """The tables, in order."""
    out = [sheet for one in told for sheet in (_prompt_sheet(one), _whole_sheet(one))]
    if any(one.output_tokens is not None for each in told for one in each.rows):
        out.append(_overall_sheet(told))
    for path, found in study.operators:
        out += [_operator_sheet(path, found), _work_sheet(found)]
    return out


def _number(value: float | None) -> str:
    return MISSING if value is None else f"{value:.4g}" if isinstance(value, float) else str(value)


def _ms(value: float | None) -> str:
    return MISSING if value is None else f"{value:.3f}"


def _prompt_sheet(told: Told) -> Sheet:
    conversation = told.conversation
    title = f"iteration {conversation.iteration}, conversation {conversation.number}, {conversation.engine}"
    heads = ("#", "MELT: s", "in", "out", "prefill/s", "tps", "mWh/token", "mAh/token")
    mine = ("ours: out", "ttft s", "prefill/s", "decode/s", "energy J", "")
    sheet = Sheet(
        title, tuple(Column(head, right=head != "", whole=head != "", faint=head == "") for head in (*heads, *mine))
    )
    requests = {one.item.rpartition("/")[2]: one for one in told.ours.requests}
    for prompt, row in zip(conversation.prompts, told.rows, strict=True):
        mwh, mah = (row.costs or {}).get(told.rail, (None, None))
        theirs = (row.duration_s, row.input_tokens, row.output_tokens, row.prefill_tps, row.tps, mwh, mah)
        one = requests.get(str(prompt.number))
        values = (None,) * 5 if one is None else (one.n_out, one.ttft_s, one.prefill_tps, one.decode_tps, one.energy_j)
        why = one.energy_reason.partition(":")[0] if one is not None and told.power is not None else ""
        sheet.rows.append((str(prompt.number), *map(_number, theirs), *map(_number, values), row.reason or why))
    return sheet


def _whole_sheet(told: Told) -> Sheet:
    """The loading by both, and our medians and ratios of the run."""
    sheet = Sheet("", (Column("measure"), Column("value", right=True), Column("", faint=True)))
    if told.load is not None:
        mwh, mah = told.load.costs.get(told.rail, (None, None))
        sheet.rows.append(("MELT: load s", _number(told.load.duration_s), ""))
        if mwh is not None:
            sheet.rows.append(("MELT: load mWh, mAh", f"{_number(mwh)}, {_number(mah)}", ""))
    tie = told.ours.tie
    if told.power is not None:
        offset = MISSING if tie.why else f"{tie.offset_ns / 1e9:.3f} ± {tie.bound_s:.3g}"
        sheet.rows.append(("program's clock less meter's, s", offset, tie.how or tie.why))
    for one in chosen(told.ours.measures):
        where = "" if one.phase == "run" else f" ({one.phase})"
        value = _number(one.value) + (f" ± {one.u_k2:.2g}" if one.value is not None and one.u_k2 is not None else "")
        sheet.rows.append((f"{one.name}{where}", value, one.reason or one.stat.replace("value", "")))
    for reason in told.ours.reasons:
        sheet.rows.append((reason.code, "", reason.detail))
    return sheet


def chosen(measures: Sequence[Measure]) -> list[Measure]:
    """Of our measures those that stand beside MELT's, of the run and of its points."""
    named = {name: [one for one in measures if bare(one.name) == name] for name in (*_OURS, *_OF_TOTAL)}
    out: list[Measure] = []
    for name, all_of_it in named.items():
        mine = [one for one in all_of_it if name not in _OF_TOTAL or one.source in ("total", "")]
        phases = dict.fromkeys(one.phase for one in mine)
        for phase in ["run"] if "run" in phases else phases:
            found = pick(mine, mine[0].name, phase=phase)
            # The first says why there is nothing; the same again says no more.
            if found is not None and (found.value is not None or found.reason not in [one.reason for one in out]):
                out.append(found)
    return out


def _overall_sheet(told: Sequence[Told]) -> Sheet:
    found = overall(list(told))
    sheet = Sheet("MELT's notebook, over all", (Column("figure"), Column("value", right=True), Column("", faint=True)))
    kept = f"mean of {found.n} prompts between the 5th and the 95th percentile"
    energy = f"sum over {found.n_energy} kept prompts, mean of iterations"
    rows = (
        ("tps", found.tps, kept),
        ("prefill_tps", found.prefill_tps, kept),
        ("energy_pt (mWh)", found.energy_pt_mwh, energy),
        ("discharge_pt (mAh)", found.discharge_pt_mah, energy),
        ("discharge_per_token (mAh)", found.discharge_per_token_mah, energy),
    )
    for name, value, note in rows:
        sheet.rows.append((name, _number(value), note if value is not None else found.reason))
    return sheet


def _operator_sheet(path: str, found: Operators) -> Sheet:
    """MELT's tables of operators, the longest first."""
    if found.engine == "MLC":
        columns = (
            Column("MELT: per_module, per_op"),
            Column("device"),
            Column("n", right=True),
            Column("ms", right=True),
        )
        sheet = Sheet(path, columns)
        ordered = sorted(by_operator(found), key=lambda one: -(one.total_ms or 0.0))
        for one in (*by_module(found), *ordered):
            sheet.rows.append((one.name, one.device, "" if one.n is None else str(one.n), _ms(one.total_ms)))
        return sheet
    heads = ("detailed: Duration (ms), CPU", "Wall time (ms)", "summary: Duration (ms)")
    sheet = Sheet(path, (Column("MELT: per_op"), *(Column(head, right=True) for head in heads)))
    for one in sorted(by_operator(found), key=lambda one: -(one.cpu_ms or 0.0)):
        sheet.rows.append((one.name, *(_ms(value) for value in (one.cpu_ms, one.wall_ms, one.total_ms))))
    return sheet


def _work_sheet(found: Operators) -> Sheet:
    heads = ("n", "tokens", "s", "median s", "tok/s at most")
    sheet = Sheet("", (Column("ours"), *(Column(head, right=True) for head in heads)))
    for one in by_work(found):
        values = (one.tokens, one.seconds, one.median_s, one.per_s)
        sheet.rows.append((one.what, str(one.n), *map(_number, values)))
    return sheet
