"""``meltbench runners``: the runners there are, and the engines that are built for targets."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from meltbench.cli import lists
from meltbench.cli.common import Json, choosing, console, plain, print_json

if TYPE_CHECKING:
    from meltbench.builds.on_device import Installed
    from meltbench.watch import Watch

_BUILT = "llamacpp"
_HELP = "List the runners that can be named; build an engine for a target."
runners_app = typer.Typer(help=_HELP)


@runners_app.callback(invoke_without_command=True, epilog="Example: meltbench runners --json")
def runners(context: typer.Context, as_json: Json = False) -> None:
    """List the runners that can be named; build an engine for a target."""
    if context.invoked_subcommand is None:
        lists.command("runners")(as_json)
    elif as_json:
        from meltbench.errors import UserError

        hint = f"meltbench runners {context.invoked_subcommand} --json"
        raise UserError("--json stands before the sub-command", hint=hint)


@runners_app.command(epilog="Example: meltbench runners build llamacpp --target aarch64-linux --cpu dotprod")
def build(
    runner: Annotated[str, typer.Argument(metavar="RUNNER", help="The runner whose engine it is: llamacpp.")],
    target: Annotated[
        str | None,
        typer.Option("--target", metavar="NAME", help="x86_64-linux, aarch64-linux, armv7-linux or riscv64-linux."),
    ] = None,
    cpu: Annotated[
        str | None, typer.Option("--cpu", metavar="LEVEL", help="Of its processors: generic, dotprod, i8mm, v2 to v4.")
    ] = None,
    on_device: Annotated[
        str | None, typer.Option("--on-device", metavar="NAME", help="Compile on this device, for itself.")
    ] = None,
    cuda: Annotated[bool, typer.Option("--cuda", help="With --on-device: for its NVIDIA GPU.")] = False,
    jobs: Annotated[
        int | None, typer.Option("--jobs", metavar="N", min=1, max=1024, help="Compilers at a time.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Build llama.cpp's stock programs for a kind of machine, or on a device; each is built once."""
    from meltbench import builds
    from meltbench.cli.watching import Terminal
    from meltbench.errors import UnknownName, UserError

    if runner != _BUILT:
        raise UnknownName("runner whose engine can be built", runner, [_BUILT])
    if (target is None) == (on_device is None):
        hint = f"--target {' or '.join(builds.TARGETS)}; or --on-device NAME"
        raise UserError("say what to build for: a target, or on a device", hint=hint)
    if on_device is not None and cpu is not None:
        raise UserError("--cpu goes with --target", hint="on a device the build is made for its own processor")
    if on_device is None and cuda:
        raise UserError("--cuda goes with --on-device", hint="CUDA's compiler runs on a machine that has its toolkit")
    with Terminal() as watch:
        if on_device is not None:
            made = _on_device(on_device, watch, cuda=cuda, jobs=jobs)
            told: dict[str, Any] = {"folder": made.folder, "device": on_device, "version": made.version}
            told |= {"target": None, "cpu": None, "compiler": made.compiler, "cuda": made.cuda}
            told |= {"source_sha256": made.source_sha256, "programs": made.programs}
        else:
            row = builds.variant(target or "", cpu or "generic")
            folder = builds.ensure(row, watch, jobs=jobs)
            record = builds.record_of(folder)
            assert record is not None
            told = {"folder": str(folder), "device": None, "version": record.version, "target": row.target.name}
            told |= {"cpu": row.cpu, "compiler": record.compiler, "cuda": None}
            told |= {"source_sha256": record.source["sha256"], "programs": record.programs}
    if as_json:
        print_json(told)
        return
    lines = [str(told["folder"]), f"  llama.cpp {told['version']}, {told['compiler']}"]
    for line in [*lines, *(f"  {name}  sha256 {sha}" for name, sha in sorted(told["programs"].items()))]:
        plain(console(), line)


def _on_device(name: str, watch: Watch, *, cuda: bool, jobs: int | None) -> Installed:
    from meltbench.builds import on_device
    from meltbench.site import meet
    from meltbench.targets import inventory, profile

    known = choosing(inventory.resolve, name)
    probe = meet(known, profile.load(known.profile_name)[0], watch, ()).probe
    try:
        return on_device.build(probe.transport, name, watch, root=probe.root.rsplit("/", 1)[0], cuda=cuda, jobs=jobs)
    finally:
        probe.transport.close()
