"""The transport `adb`: devices that Android's debug bridge reaches, over USB or Wi-Fi, by a real adb server."""

from __future__ import annotations

from meltbench.targets.adb.server import Attached, Server
from meltbench.targets.adb.transport import AdbTransport

__all__ = ["AdbTransport", "Attached", "Server"]
