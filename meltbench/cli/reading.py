"""``meltbench read``: what a recorded log or dump of a source says."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from meltbench.cli.common import Json, console, plain, print_json

if TYPE_CHECKING:
    from meltbench.records import SourceStatus
    from meltbench.report.sheet import Sheet
    from meltbench.spec import Scalar


def read(
    file: Annotated[str, typer.Argument(metavar="FILE", help="The recorded text; - reads standard input.")],
    reader: Annotated[
        str | None, typer.Option("--reader", metavar="NAME", help="Its reader: the table in docs/measuring.md.")
    ] = None,
    option: Annotated[
        list[str] | None,
        typer.Option("--option", metavar="KEY=VALUE", help="An option of the reader; repeatable."),
    ] = None,
    period_ms: Annotated[
        float | None,
        typer.Option("--period-ms", metavar="N", help="Time between readings, where the text has no time of its own."),
    ] = None,
    device: Annotated[
        str | None, typer.Option("--device", metavar="NAME", help="Take reader, options, period and total from it.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Read a recorded log or dump: what is in it, and the energy of its power and energy series."""
    from meltbench import recorded
    from meltbench.errors import UserError
    from meltbench.readings import Source
    from meltbench.targets import profile

    if device is None and reader is None:
        raise UserError(f"which source wrote {file} is not said", hint="give --reader NAME or --device PROFILE")
    if period_ms is not None and not 0.001 <= period_ms <= 86_400_000:
        raise UserError(f"--period-ms {period_ms:g} is out of range", hint="give 0.001 to 86400000")
    raw = bytes_of(file, recorded.MAX_BYTES)
    if not raw:
        raise UserError(f"{file} is empty")
    named = None if device is None else profile.load(device)[0]
    if named is not None:
        if option:
            raise UserError(
                "--option and --device both give options", hint="put them into the profile, or leave one out"
            )
        sources = recorded.sources_of(named, reader)
    else:
        sources = [(Source.of(str(reader), str(reader), options_of(option or [])), 1000.0)]
    found = recorded.recording(raw, sources, period_ms)
    if named is not None and not found.series:
        tried = "; ".join(f"{one.source}: {one.detail or one.status}" for one in found.sources[:8])
        raise UserError(f"no source of {device} finds anything in {file}", hint=tried)
    rows = [recorded.summary(one) for one in found.series]
    total = None if named is None or not named.total else recorded.measured(found, named)
    told = [one for one in found.sources if len(sources) == 1 or one.status == "ok"]
    if as_json:
        print_json({"sources": [vars(one) for one in told], "series": rows, "total": total})
    else:
        _print(told, rows, total)
    if not any(row["n"] for row in rows):
        plain(console(stderr=True), f"{file} holds no value that {told[0].source} can read")
        raise typer.Exit(1)


def _print(told: list[SourceStatus], rows: list[dict[str, Any]], total: dict[str, Any] | None) -> None:
    from meltbench.report.sheet import print_sheet

    out = console()
    for one in told:
        words = f"{one.source}: {one.status}, {one.readings} readings" + (f"; {one.detail}" if one.detail else "")
        plain(out, words)
    if rows:
        print_sheet(out, _sheet(rows, total), as_markdown=False)


def bytes_of(file: str, limit: int) -> bytes:
    """A file that the user named, - for standard input. Raises UserError where it cannot be read or is too large."""
    import sys

    from meltbench.errors import UserError

    if file == "-":
        raw = sys.stdin.buffer.read(limit + 1)
    else:
        try:
            with open(file, "rb") as source:
                raw = source.read(limit + 1)
        except OSError as error:
            raise UserError(f"cannot read {file}: {error.strerror or error}") from error
    if len(raw) > limit:
        raise UserError(f"{file} is larger than {limit >> 20} MiB", hint="cut it into parts")
    return raw


def options_of(pairs: list[str]) -> dict[str, Scalar]:
    """``key=value`` as TOML would read the value, else as text."""
    import tomllib

    from meltbench.errors import UserError

    out: dict[str, Scalar] = {}
    for pair in pairs:
        key, equals, text = pair.partition("=")
        if not equals or not key.strip():
            raise UserError(f"--option {pair!r} is not key=value", hint="write --option discharge_sign=-1")
        try:
            value: Any = tomllib.loads(f"value = {text}")["value"]
        except (ValueError, RecursionError):
            value = text
        out[key.strip()] = value if isinstance(value, (bool, int, float, str)) else text
    return out


def _sheet(rows: list[dict[str, Any]], total: dict[str, Any] | None) -> Sheet:
    from meltbench.report.sheet import MISSING, Column, Sheet

    def number(value: float | None) -> str:
        return MISSING if value is None else f"{value:.6g}"

    def joules(row: dict[str, Any]) -> str:
        if row["energy_j"] is None:
            return str(row["reason"] or "")
        return f"{row['energy_j']:.6g} J" + ("" if row["u_k2"] is None else f" ± {row['u_k2']:.2g}")

    heads = ("series", "unit", "n", "first", "last", "mean", "not ok", "energy")
    right = {"n", "first", "last", "mean"}
    sheet = Sheet("", tuple(Column(head, right=head in right, whole=head in ("series", *right)) for head in heads))
    for row in rows:
        bad = ", ".join(f"{n} {word}" for word, n in row["statuses"].items() if word != "ok")
        values = (number(row[key]) for key in ("first", "last", "mean"))
        sheet.rows.append((row["name"], row["unit"], str(row["n"]), *values, bad, joules(row)))
    if total is not None:
        name = f"total: {total['scope']}, class {total['klass']}" if total["scope"] else "total"
        partial = f" (partial: {total['partial']})" if total["partial"] else ""
        sheet.rows.append((name, "J", "", "", "", "", "", joules(total) + partial))
    return sheet
