"""``meltbench models build-onnx``: a model for ONNX Runtime GenAI, made by its own builder."""

from __future__ import annotations

from typing import Annotated

import typer

from meltbench.cli.common import Json, console, plain, print_json


def register(models_app: typer.Typer) -> None:
    """Add the command to ``meltbench models``."""
    models_app.command(epilog="Example: meltbench models build-onnx smollm2-135m-q4 smollm2-onnx")(build_onnx)


def build_onnx(
    model: Annotated[
        str,
        typer.Argument(metavar="MODEL", help="A GGUF by its name or path, or a folder of safetensors."),
    ],
    out: Annotated[str, typer.Argument(metavar="FOLDER", help="Where the model is put; it must not be there yet.")],
    precision: Annotated[
        str, typer.Option("--precision", metavar="NAME", help="int4, int8, fp32, fp16 or bf16.")
    ] = "int4",
    provider: Annotated[
        str, typer.Option("--provider", metavar="NAME", help="For cpu, cuda, dml, webgpu or NvTensorRtRtx.")
    ] = "cpu",
    as_json: Json = False,
) -> None:
    """Build a model for ONNX Runtime GenAI, with its own builder (needs the extra build-onnx)."""
    from dataclasses import asdict
    from pathlib import Path

    from meltbench.cli.watching import Terminal
    from meltbench.models.onnx.build import build
    from meltbench.targets import printable

    folder = Path(out).expanduser()
    with Terminal() as watch:
        built = build(model, folder, precision, provider, watch)
    if as_json:
        print_json({"folder": str(folder.absolute()), **asdict(built)})
        return
    size = f"{built.weights_bytes / 1e6:.1f} MB, {built.bits_per_weight:g} bits per weight"
    made = f"  {built.precision} for {built.provider}, {size}, by {built.builder}"
    for line in (str(folder), made, printable(f"  descends from {built.descends_from}")[:500]):
        plain(console(), line)
