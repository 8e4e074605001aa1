"""Models as tables, lines and JSON: what can be named, what one is, what became of one that was made."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any

from meltbench import models
from meltbench.errors import MeltbenchError
from meltbench.models.header import SHORT
from meltbench.models.names import source_of
from meltbench.report.sheet import MISSING, Column, Sheet
from meltbench.report.units import quantity

if TYPE_CHECKING:
    from meltbench.models import Artifact, Entry, Header, Model
    from meltbench.models.ladder import Rung

_FACTS = ("title", "alias_of", "license", "parameters_billion", "active_billion", "context_tokens", "chat_template")


def entry_json(entry: Entry) -> dict[str, Any]:
    """A model of the list (docs/json.md). No file is looked into."""
    rows = [_listed(entry, artifact) for artifact in entry.artifact]
    return {"name": entry.name} | {key: getattr(entry, key) for key in _FACTS} | {"artifacts": rows}


def _listed(entry: Entry, artifact: Artifact) -> dict[str, Any]:
    path = models.lies_at(entry, artifact)
    if artifact.path is None:
        return artifact_json(models.of_artifact("", entry, artifact), path)
    row = {key: getattr(artifact, key) for key in ("format", "quantisation", "bits_per_weight", "descends_from")}
    row |= {"size_bytes": None, "sha256": None, "sha256_from": None}
    return {"name": entry.name_of(artifact), "source": str(source_of(artifact)), "path": _text(path)} | row


def artifact_json(model: Model, path: object) -> dict[str, Any]:
    """One form of a model."""
    keys = ("name", "format", "quantisation", "size_bytes", "sha256", "sha256_from", "bits_per_weight", "descends_from")
    return {key: getattr(model, key) for key in keys} | {"source": str(model.source), "path": _text(path)}


def _text(path: object) -> str | None:
    return None if path is None else str(path)


def model_json(facts: Entry | None, forms: list[Model], name: str) -> dict[str, Any]:
    """A model with what its files say of themselves; ``facts`` are the catalogue's, None of one that is not in it."""
    said = {key: getattr(facts, key, None) for key in _FACTS}
    if facts is None:
        said["title"] = forms[0].title or None
    return {"name": facts.name if facts else name} | said | {"artifacts": [_shown(model) for model in forms]}


def _shown(model: Model) -> dict[str, Any]:
    """A form of a model, and the header of its file where that is here."""
    path, header, problem = models.cached(model), None, None
    if path is not None:
        try:
            header = header_json(models.read_header(path, model.format))
        except MeltbenchError as error:
            problem = error.message
    return artifact_json(model, path) | {"header": header, "problem": problem}


def header_json(header: Header) -> dict[str, Any]:
    """What a file says of itself."""
    gguf = header if isinstance(header, models.Gguf) else None
    return {
        "architecture": header.architecture,
        "n_params": header.n_params,
        "context_tokens": header.context_length,
        "vocabulary": header.vocab_size,
        "chat_template": gguf.has_chat_template if gguf else None,
        "bits_per_weight": header.bits_per_weight,
        "quantisation": gguf.file_type if gguf else None,
        "tensors": dict(Counter(tensor.type for tensor in gguf.tensors)) if gguf else {},
    }


def sheet(rows: list[dict[str, Any]]) -> tuple[Sheet, list[str]]:
    """The list as a table, and a line for each alias."""
    columns = (Column("model", whole=True), Column("parameters", right=True, whole=True), Column("context", right=True))
    table = Sheet("", (*columns, Column("artifacts"), Column("licence", faint=True)))
    for row in rows:
        if row["alias_of"] is None:
            context = MISSING if row["context_tokens"] is None else str(row["context_tokens"])
            forms = ", ".join(_form(one) for one in row["artifacts"])
            table.rows.append((row["name"], _billions(row) or MISSING, context, forms, row["license"] or MISSING))
    return table, [f"{row['name']} stands for {row['alias_of']}" for row in rows if row["alias_of"] is not None]


def _form(row: dict[str, Any]) -> str:
    words = [SHORT[row["format"]], row["quantisation"] or row["name"]]
    if row["descends_from"] is not None:
        words = [SHORT[row["format"]], row["name"]]
    return " ".join(words) + (" (here)" if row["path"] else "")


def _billions(row: dict[str, Any]) -> str:
    size, active = row["parameters_billion"], row["active_billion"]
    return "" if size is None else f"{size:g} B" + (f", {active:g} B active" if active else "")


def model_lines(row: dict[str, Any]) -> list[str]:
    """A model as a person reads it."""
    facts = [
        row["license"] and f"licence {row['license']}",
        _billions(row) and f"{_billions(row)} parameters",
        row["context_tokens"] and f"context {row['context_tokens']} tokens",
        row["chat_template"] and f"conversations as {row['chat_template']}",
    ]
    lines = [": ".join(filter(None, (row["name"], row["title"])))]
    lines += [f"  {', '.join(said)}"] if (said := [one for one in facts if one]) else []
    for one in row["artifacts"]:
        lines += ["", *artifact_lines(one), *_header_lines(one)]
    return lines


def artifact_lines(row: dict[str, Any]) -> list[str]:
    """One form of a model: where it is from, whose word its hash is, where it lies."""
    weight = row["bits_per_weight"] and f"{row['bits_per_weight']:.4g} bits per weight"
    size = row["size_bytes"] and quantity(row["size_bytes"], "B")
    what = ", ".join(filter(None, (SHORT[row["format"]], row["quantisation"], weight, size)))
    whose = {"catalogue": "by the catalogue", "pin": "pinned at its first pull", "file": "of the file itself"}
    sha256 = f"{row['sha256']}, {whose[row['sha256_from']]}" if row["sha256"] else "pinned at its first pull"
    lines = [f"{row['name']}  {what}", f"  from    {row['source']}", f"  sha256  {sha256}"]
    lines += [f"  made    requantised from {row['descends_from']}"] if row["descends_from"] else []
    return [*lines, f"  here    {row['path'] or 'no: meltbench models pull ' + row['name']}"]


def _header_lines(row: dict[str, Any]) -> list[str]:
    if row["problem"] is not None:
        return [f"  file    {row['problem']}"]
    if (head := row["header"]) is None:
        return []
    template = {True: "with a chat template", False: "without a chat template", None: None}[head["chat_template"]]
    words = [
        head["architecture"],
        head["n_params"] and f"{head['n_params']:,} parameters",
        head["context_tokens"] and f"context {head['context_tokens']}",
        head["vocabulary"] and f"vocabulary {head['vocabulary']}",
        template,
        head["bits_per_weight"] and f"{head['bits_per_weight']:.4g} bits per weight",
    ]
    tensors = ", ".join(f"{count} {kind}" for kind, count in head["tensors"].items())
    lines = [f"  file    {', '.join(word for word in words if word)}"]
    return lines + ([f"  tensors {tensors}"] if tensors else [])


def rung_json(rung: Rung) -> dict[str, Any]:
    """A quantisation that was made (docs/json.md)."""
    made = rung.made
    return {
        "name": rung.name,
        "type": made.type,
        "path": str(made.path),
        "sha256": made.sha256,
        "size_bytes": made.size_bytes,
        "bits_per_weight": made.bits_per_weight,
        "descends_from": made.descends_from,
        "requantised": made.requantised,
        "kept": made.kept,
        "fell_back": made.fell_back,
        "anew": rung.anew,
    }


def ladder(rungs: list[Rung]) -> Sheet:
    """Quantisations that were made, as a table."""
    columns = (Column("model", whole=True), Column("bits per weight", right=True), Column("size", right=True))
    table = Sheet(
        "", (*columns, Column("requantised", right=True), Column("kept", right=True), Column("F16", right=True))
    )
    for one in rungs:
        made = one.made
        counts = (str(made.requantised), str(made.kept), str(made.fell_back))
        table.rows.append((one.name, f"{made.bits_per_weight:.4g}", quantity(made.size_bytes, "B"), *counts))
    return table
