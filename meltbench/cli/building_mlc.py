"""``meltbench models build-mlc``: a model's folder in MLC's form, with a library for this machine's CPU."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from meltbench.cli.common import Json, console, plain, print_json


def register(models_app: typer.Typer) -> None:
    """Add the command to ``meltbench models``."""
    models_app.command("build-mlc", epilog="Example: meltbench models build-mlc smollm2-135m-q4 ./smol-mlc")(build_mlc)


def build_mlc(
    model: Annotated[
        str, typer.Argument(metavar="MODEL", help="A Llama: a model's name, a GGUF file, or a folder of safetensors.")
    ],
    out: Annotated[Path, typer.Argument(metavar="OUT", help="The folder to be made.")],
    quantisation: Annotated[
        str, typer.Option("--quantisation", metavar="NAME", help="q0f32 (none) or q4f32_1 (groups of 4 bits).")
    ] = "q0f32",
    tokenizer: Annotated[
        Path | None, typer.Option("--tokenizer", metavar="FILE", help="A tokenizer.json in place of the model's own.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Compile a Llama with Apache TVM for this machine's CPU, as a folder in MLC's form (--runner mlc-tvm).

    Weights that were quantised are taken apart first: nothing that they lost comes back.
    """
    from meltbench import models
    from meltbench.cli.watching import Terminal
    from meltbench.models.mlc.build import build

    with Terminal() as watch:
        given = Path(model).expanduser()
        if (given / "config.json").is_file():
            path = given
        else:
            path = models.ensure(models.resolve(model, taker="models build-mlc"), watch.fetched, watch.say)
        made = build(path, out.expanduser(), quantisation, watch, tokenizer)
    if as_json:
        print_json(asdict(made))
        return
    was = f", made of {made.descends_from} weights" if made.descends_from else ""
    lines = [
        made.folder,
        f"  {made.n_params / 1e6:.4g} M parameters, {made.bits_per_weight:.3g} bits per weight{was}",
        f"  library for {made.target}, Apache TVM {made.tvm}",
        *([] if made.messages else ["  no conversation template: it can be asked prompts, and no messages"]),
    ]
    for line in lines:
        plain(console(), line)
