"""The commands of ``meltbench`` in the order of their help."""

from __future__ import annotations

from typing import TYPE_CHECKING

import typer

from meltbench.cli import (
    billing,
    building,
    building_mlc,
    cache,
    calibrate,
    comparing,
    doctor,
    intelligence,
    inventory,
    lists,
    measure,
    pages,
    pareto,
    predicting,
    reading,
    routing,
    runs,
    topping,
)
from meltbench.cli.devices import devices_app
from meltbench.cli.importing import import_app
from meltbench.cli.models import models_app
from meltbench.cli.runners import runners_app

if TYPE_CHECKING:
    from collections.abc import Callable

app = typer.Typer(
    name="meltbench",
    help="What a language model costs on a device: time, energy, heat, memory, with honest error bars.",
    epilog="Start with: meltbench run",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
commands: dict[Callable[..., None], str] = {
    measure.run: "meltbench run --workload grid --set points=pp512,tg128 --reps 5",
    measure.exec_: "meltbench exec -- sleep 2",
    runs.runs: "meltbench runs --model qwen --last 10 --markdown",
    topping.top: "meltbench top",
    runs.show: "meltbench show last --no-plot",
    runs.collect: "meltbench collect",
    runs.export: "meltbench export --format csv --out runs.csv",
    runs.verify: "meltbench verify",
    runs.rebuild: "rm data/meltbench.duckdb && meltbench rebuild",
    comparing.compare: "meltbench compare --last 2",
    intelligence.intelligence: "meltbench intelligence last",
    billing.cost: "meltbench cost model=qwen-1.5b-q4 --price 0.30/kWh --grid-region EU",
    billing.battery: "meltbench battery device=laptop --battery-wh 57",
    pages.dashboard: "meltbench dashboard --open",
    pages.report: "meltbench report model=qwen-1.5b-q4 --out qwen.html",
    pareto.pareto: "meltbench pareto --x ttft_s --y accuracy@hellaswag --where 'memory_bytes<4GB'",
    routing.route: "meltbench route device=pi5 --cloud-j-per-query 500 --cloud-accuracy 0.9",
    predicting.predict: "meltbench predict --in 512 --out 1024 --model qwen",
    reading.read: "meltbench read powermetrics.log --device macbook",
}
for command, example in commands.items():
    app.command(command.__name__.rstrip("_"), epilog=f"Example: {example}")(command)
app.command("workloads", epilog="Example: meltbench workloads --json")(lists.command("workloads"))
inventory.register(devices_app)
doctor.register(devices_app)
devices_app.command("cache", epilog="Example: meltbench devices cache pi5 --drop 3fae1b")(cache.cache)
calibrate.register(devices_app)
app.add_typer(devices_app, name="devices")
building.register(models_app)
building_mlc.register(models_app)
app.add_typer(models_app, name="models")
app.add_typer(runners_app, name="runners")
app.add_typer(import_app, name="import")


@app.callback(invoke_without_command=True)
def root(version: bool = typer.Option(False, "--version", help="Print the version and leave.")) -> None:
    """Handle options that stand before any command."""
    if version:
        import meltbench

        typer.echo(f"meltbench {meltbench.__version__}")
        raise typer.Exit
