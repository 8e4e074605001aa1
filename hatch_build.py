"""Puts the probe's binaries into the wheel: the host's target, or all of them with MELTBENCH_PROBE_TARGETS=all."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import tempfile
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface


def _load_build(root: Path) -> Any:
    # By path: importing the package would need its dependencies, which a build environment lacks.
    spec = importlib.util.spec_from_file_location("probe_build", root / "meltbench" / "probe" / "build.py")
    if spec is None or spec.loader is None:
        raise ImportError("meltbench/probe/build.py is missing from the source tree")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


class ProbeHook(BuildHookInterface):  # type: ignore[misc,type-arg,unused-ignore]
    """Compiles the probe while a wheel is made; an editable install builds it on first use instead."""

    PLUGIN_NAME = "custom"

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Add ``meltbench/definitions/probe-bin/TARGET/*`` to the wheel."""
        if self.target_name != "wheel" or version == "editable":
            return
        build = _load_build(Path(self.root))
        wish = os.environ.get("MELTBENCH_PROBE_TARGETS", "host")
        if wish not in ("host", "all"):
            raise ValueError(f"MELTBENCH_PROBE_TARGETS={wish}: valid are host and all")
        native = build.native_target()
        if wish == "host" and native is None:
            self.app.display_warning("no probe in this wheel: this machine cannot run one; it is built on first use")
            return
        targets = build.TARGETS if wish == "all" else (native,)
        self._folder = tempfile.TemporaryDirectory(prefix="meltprobe-")
        for target in targets:
            try:
                files = build.package(target, Path(self._folder.name) / target)
            except (OSError, subprocess.SubprocessError) as error:
                raise RuntimeError(f"the probe for {target}: {getattr(error, 'stderr', None) or error}") from error
            for name, path in files.items():
                build_data["force_include"][str(path)] = f"meltbench/definitions/probe-bin/{target}/{name}"

    def finalize(self, version: str, build_data: dict[str, Any], artifact_path: str) -> None:  # noqa: ARG002
        """Remove what was compiled."""
        folder = getattr(self, "_folder", None)
        if folder is not None:
            folder.cleanup()
