"""The wire to a room: a pair of virtual network cards, and what can go wrong with one.

Neither end is seen by anything else: the addresses are of 198.18.0.0/15, which RFC 2544 sets apart for such tests, and
every rule of the packet filter lies in the room's own namespace. Kernels without netem cannot delay; a process that
carries packets between two TUN devices can (tun_relay.py).
"""

from __future__ import annotations

import random
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from targets_kit import HERE, sh, which

if TYPE_CHECKING:
    from rooms_kit import Room

_RULES = """table inet lab {{
    chain in {{ type filter hook input priority 0; iif lo accept; {rule}; }}
    chain out {{ type filter hook output priority 0; oif lo accept; {rule}; }}
}}
"""


class Wire:
    """``address`` is the room's, ``here`` this machine's end."""

    def __init__(self, room: Room) -> None:
        self.room, self._relay = room, None
        number = self._plug()
        self.card = f"mbl{number}"
        first = number * 8
        self._net = f"198.{18 + first // 65536}.{first // 256 % 256}"
        self._host = first % 256
        self.here, self.address = self._nth(1), self._nth(2)
        sh("ip", "address", "add", f"{self.here}/29", "dev", self.card)
        sh("ip", "link", "set", self.card, "up")
        for words in (("addr", "add", f"{self.address}/29", "dev", "eth0"), ("link", "set", "eth0", "up")):
            room.ip(*words)

    def _plug(self) -> int:
        """A pair of cards, one in the room, and its number: of the 8192 one that no other test has now."""
        for _ in range(50):
            number = random.randrange(8192)
            try:
                peer = ("type", "veth", "peer", "name", "eth0", "netns", str(self.room.pid))
                sh("ip", "link", "add", f"mbl{number}", *peer)
            except RuntimeError as error:
                if "File exists" not in str(error):
                    raise
            else:
                return number
        raise RuntimeError("no pair of cards is left")

    def _nth(self, number: int) -> str:
        return f"{self._net}.{self._host + number}"

    def cut(self) -> None:
        """Pull the plug: both ends lose their carrier."""
        self._straight()
        sh("ip", "link", "set", self.card, "down")

    def restore(self) -> None:
        """Mend whatever was done to it. The address stays what it was changed to."""
        self._straight()
        self._rule("")
        sh("ip", "link", "set", self.card, "up")

    def drop(self) -> None:
        """Let every packet vanish in the room, with the carrier up."""
        self._rule("drop")

    def reset(self) -> None:
        """Have every TCP connection refused and broken off from now on, until it is restored."""
        self._rule("tcp flags rst accept; meta l4proto tcp reject with tcp reset")

    def loss(self, percent: int) -> None:
        """Lose so many of the packets of each direction, at random."""
        self._rule(f"numgen random mod 100 < {percent} drop" if percent else "")

    def delay(self, ms: float, jitter_ms: float = 0, loss_percent: float = 0) -> None:
        """Delay every packet of each direction by so much; connections go on. Packets keep their order."""
        self._straight()
        argv = [sys.executable, str(HERE / "tun_relay.py"), self.room.net, f"{self.card}t"]
        argv += [str(ms), str(jitter_ms), str(loss_percent)]
        self._relay = subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        assert self._relay.stdout is not None
        if self._relay.stdout.readline() != b"ready\n":
            raise RuntimeError("no relay between two TUN devices")
        sh("ip", "link", "set", f"{self.card}t", "up")
        sh("ip", "route", "add", f"{self.address}/32", "dev", f"{self.card}t", "src", self.here)
        self.room.ip("link", "set", "tun0", "up")
        self.room.ip("route", "add", f"{self.here}/32", "dev", "tun0", "src", self.address)

    def change_address(self) -> str:
        """Give the room another address, as a lease of DHCP that ran out does; the new one."""
        old, self.address = self.address, self._nth(3 if self.address == self._nth(2) else 2)
        self.room.ip("addr", "del", f"{old}/29", "dev", "eth0")
        self.room.ip("addr", "add", f"{self.address}/29", "dev", "eth0")
        return self.address

    def close(self) -> None:
        """Take it away. The room's end goes with this one."""
        self._straight()
        if Path(f"/sys/class/net/{self.card}").exists():
            sh("ip", "link", "delete", self.card)

    def _rule(self, rule: str) -> None:
        text = "add table inet lab\ndelete table inet lab\n" + (_RULES.format(rule=rule) if rule else "")
        words = ["nsenter", f"--net={self.room.net}", str(which("nft")), "-f", "-"]
        subprocess.run(words, input=text.encode(), check=True, capture_output=True)

    def _straight(self) -> None:
        """Without a relay: its devices, and the routes over them, go with the process."""
        if self._relay is not None:
            self._relay.kill()
            self._relay.communicate()
            self._relay = None
