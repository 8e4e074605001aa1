"""Targets reached by SSH: all that one needs is sshd and a POSIX shell. What is honoured and checked: docs/ssh.md."""

from __future__ import annotations

from meltbench.targets.ssh.transport import SshTransport, accept

__all__ = ["SshTransport", "accept"]
