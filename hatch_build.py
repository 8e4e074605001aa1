"""Puts the probe's binaries into the wheel: the host's target, or all of them with MELTBENCH_PROBE_TARGETS=all.

A binary that the user's cache holds for these very sources is taken from there, so that a second install is quick.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

# The builder needs nothing but the standard library, and so do the packages above it.
sys.path.insert(0, str(Path(__file__).parent))
from meltbench.probe import build


class ProbeHook(BuildHookInterface):  # type: ignore[misc,type-arg,unused-ignore]
    """Compiles the probe while a wheel is made; an editable install builds it on first use instead."""

    PLUGIN_NAME = "custom"

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Add ``meltbench/definitions/probe-bin/SOURCE_HASH/TARGET/meltprobe`` to the wheel."""
        if self.target_name != "wheel" or version == "editable":
            return
        wish = os.environ.get("MELTBENCH_PROBE_TARGETS", "host")
        if wish not in ("host", "all"):
            raise ValueError(f"MELTBENCH_PROBE_TARGETS={wish}: valid are host and all")
        native = build.native_target()
        if wish == "host" and native is None:
            self.app.display_warning("no probe in this wheel: this machine cannot run one; it is built on first use")
            return
        for target in build.TARGETS if wish == "all" else (native,):
            place = f"meltbench/definitions/probe-bin/{build.source_hash()}/{target}/{build.NAME}"
            build_data["force_include"][str(build.binary(target, say=self.app.display_info))] = place
