"""The commands of ``meltbench`` in the order of their help."""

from __future__ import annotations

import typer

from meltbench.cli import lists, measure, runs

app = typer.Typer(
    name="meltbench",
    help="What a language model costs on a device: time, energy, heat, memory, with honest error bars.",
    epilog="Start with: meltbench run",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
for command in (measure.run, measure.exec_, runs.runs, runs.show, runs.collect, runs.export, runs.verify, runs.rebuild):
    name = command.__name__.rstrip("_")
    settings = {"ignore_unknown_options": True} if name == "exec" else None
    app.command(name, context_settings=settings, epilog=f"Example: {command.example}")(command)  # type: ignore[attr-defined]
for kind in ("models", "devices", "runners", "workloads"):
    app.command(kind, epilog=f"Example: meltbench {kind} --json")(lists.command(kind))


@app.callback(invoke_without_command=True)
def root(version: bool = typer.Option(False, "--version", help="Print the version and leave.")) -> None:
    """Handle options that stand before any command."""
    if version:
        import meltbench

        typer.echo(f"meltbench {meltbench.__version__}")
        raise typer.Exit
