"""The laboratory's targets are what they say they are, by OpenSSH's own client, and nothing of them stays."""

from __future__ import annotations

import os
import re
import socket
import subprocess
from itertools import pairwise
from pathlib import Path

import pytest
from board_simulator import PHYSICS
from guest_kit import Guest
from made_boards import Board, made_board
from rooms_kit import RoomTarget, arm64_rootfs, plain_room
from targets_kit import Keys, Target, until

PYTHONS = "ls /usr/bin /bin /usr/local/bin /usr/lib | grep -i -e python -e perl || echo none"


def uptime_s(target: Target) -> float:
    return float(target.ssh("cut -d' ' -f1 /proc/uptime"))


def fails(target: Target, seconds: int = 1) -> str:
    """What ssh said when it could not reach the target within so many seconds."""
    argv = target.argv("true")
    argv[1:1] = ["-o", f"ConnectTimeout={seconds}"]
    done = subprocess.run(argv, capture_output=True, text=True, timeout=60)
    assert done.returncode == 255
    return done.stderr


# --- a room ---


def test_a_room_has_sshd_a_shell_and_a_plain_user_but_no_python(plain: RoomTarget) -> None:
    assert plain.ssh("id -un; echo $HOME") == "lab\n/home/lab"
    assert plain.ssh(PYTHONS) == "none"
    assert int(plain.ssh("ls -d /proc/[0-9]* | wc -l")) < 15  # its processes are its own
    assert plain.ssh("cat /etc/hostname") == "lab-plain"
    assert plain.try_ssh("cat /root/x; echo y > /etc/x").returncode != 0


def test_a_room_has_its_own_clock_since_boot_and_a_reboot_begins_it_anew(plain: RoomTarget) -> None:
    before = plain.boot_id()
    plain.ssh("echo kept > kept; echo lost > /tmp/lost")
    assert uptime_s(plain) < float(Path("/proc/uptime").read_text().split()[0])
    until(lambda: uptime_s(plain) > 7, "the room to be up for 7 s")
    plain.reboot()
    assert uptime_s(plain) < 7
    assert re.fullmatch(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", plain.boot_id())
    assert plain.boot_id() != before
    assert plain.ssh("cat kept; ls /tmp") == "kept"


def test_a_room_has_a_disk_that_can_be_full(plain: RoomTarget) -> None:
    plain.fill_disk(8 << 20)
    full = plain.try_ssh("dd if=/dev/zero of=big bs=1M count=20")
    assert "No space left" in full.stderr
    plain.free_disk()
    plain.ssh("dd if=/dev/zero of=big bs=1M count=20; rm big")


def test_a_room_outlives_its_sshd_and_can_show_another_key(plain: RoomTarget) -> None:
    plain.ssh("sleep 300 < /dev/null > /dev/null 2>&1 &")
    plain.kill_sshd()
    plain.ready()
    assert "sleep 300" in plain.room.processes().values()
    plain.ssh("kill $(pidof sleep)")
    key = plain.change_host_key()
    until(lambda: "IDENTIFICATION HAS CHANGED" in plain.try_ssh("true").stderr, "the new key to be shown")
    plain.keys.trust(plain.name, key)
    assert plain.ssh("echo known") == "known"


def test_a_room_can_be_off(plain: RoomTarget) -> None:
    plain.room.halt()
    assert fails(plain)
    plain.reboot()
    assert plain.ssh("echo on") == "on"


# --- its wire ---


def test_a_wire_that_was_cut_and_mended_goes_on_with_what_was_under_way(plain: RoomTarget) -> None:
    with subprocess.Popen(plain.argv("sleep 3; echo told"), stdout=subprocess.PIPE, text=True) as under_way:
        until(lambda: "sleep 3" in plain.room.processes().values(), "the command to run")
        plain.wire.cut()
        assert "timed out" in fails(plain) or "No route" in fails(plain)
        plain.wire.restore()
        assert under_way.communicate(timeout=60)[0] == "told\n"


def test_a_wire_that_drops_is_silent_and_one_that_resets_refuses(plain: RoomTarget) -> None:
    plain.wire.drop()
    assert "timed out" in fails(plain)
    plain.wire.reset()
    assert "refused" in fails(plain) or "reset" in fails(plain)
    plain.wire.restore()
    assert plain.ssh("echo back") == "back"


def test_a_wire_that_loses_packets_still_carries_all(plain: RoomTarget) -> None:
    plain.wire.loss(20)
    lost = int(
        plain.ssh("ping -q -c 50 -i 0.01 -W 1 127.0.0.1 | sed -n 's/.* \\([0-9]*\\)% packet loss/\\1/p'", user="root")
    )
    assert lost == 0  # not on the room's loopback
    assert len(plain.ssh("head -c 300000 /dev/zero | tr '\\0' x")) == 300_000
    plain.wire.restore()


def test_a_wire_can_be_long(plain: RoomTarget) -> None:
    def round_trip_ms() -> float:
        told = plain.ssh(f"ping -q -c 3 -i 0.2 {plain.wire.here}", user="root")
        return float(re.search(r"min/avg/max = ([\d.]+)/", told)[1])

    assert round_trip_ms() < 30
    plain.wire.delay(30, jitter_ms=5)
    assert 50 < round_trip_ms() < 200
    assert plain.ssh("echo far away") == "far away"
    plain.wire.restore()
    assert round_trip_ms() < 30


def test_a_room_can_come_back_under_another_address(plain: RoomTarget) -> None:
    old = plain.wire.address
    new = plain.wire.change_address()
    assert new != old
    assert fails(plain)
    plain.keys.move(plain.name, new)
    assert plain.ssh("echo here") == "here"
    plain.wire.change_address()
    plain.keys.move(plain.name, old)


def test_two_rooms_are_two_machines(plain: RoomTarget, tmp_path: Path, lab_keys: Keys) -> None:
    with plain_room(tmp_path, lab_keys, "lab-other") as other:
        assert other.ssh("cat /etc/machine-id") != plain.ssh("cat /etc/machine-id")
        assert other.boot_id() != plain.boot_id()
        other.ssh("echo mine > mine")
        assert plain.try_ssh("cat mine").returncode != 0
    assert plain.ssh("echo still here") == "still here"


# --- another processor ---


def test_an_arm64_target_runs_arm64_programs_and_nobody_else_sees_how(arm64: RoomTarget) -> None:
    assert arm64.ssh(f"uname -m; {PYTHONS}") == "aarch64\nnone"
    assert " asimddp" in arm64.ssh("cat /proc/cpuinfo")
    with pytest.raises(OSError, match="Exec format error"):
        subprocess.run([arm64.room.path("/bin/dash"), "-c", "true"])
    before = arm64.boot_id()
    arm64.reboot()
    assert arm64.boot_id() != before


# --- another kernel ---


def test_a_guest_has_a_kernel_of_its_own_and_boots_anew(guest: Guest) -> None:
    assert guest.ssh("uname -m") == "aarch64"
    assert guest.ssh("uname -r") != os.uname().release
    assert guest.ssh(PYTHONS) == "none"
    guest.ssh("echo kept > kept; sync")
    first = guest.boot_id()
    guest.reboot()
    second = guest.boot_id()
    guest.crash()
    assert len({first, second, guest.boot_id()}) == 3
    assert guest.ssh("cat kept") == "kept"


def test_a_guest_has_netem_a_wall_clock_and_a_disk_of_its_own(guest: Guest) -> None:
    guest.netem("delay 200ms loss 5%")
    told = guest.ssh("tc qdisc show dev eth0; tc qdisc replace dev eth0 root fq_codel", user="root")
    assert "delay 200ms loss 5%" in told
    here = int(guest.ssh("date +%s"))
    guest.step_clock(3600)
    assert 3590 < int(guest.ssh("date +%s")) - here < 3700
    guest.step_clock(-3600)
    guest.fill_disk(1 << 20)
    assert "No space left" in guest.try_ssh("dd if=/dev/zero of=big bs=1M count=5").stderr
    guest.free_disk()
    guest.ssh("dd if=/dev/zero of=big bs=1M count=5; rm big")


def test_a_guest_can_be_out_of_reach(guest: Guest) -> None:
    guest.cut()
    assert fails(guest)
    guest.restore()
    guest.ready()


# --- made boards ---


def test_a_made_jetson_looks_like_one(jetson: Board) -> None:
    assert jetson.ssh("cat /proc/device-tree/compatible | tr '\\0' ' '").split() == [
        *("nvidia,p3768-0000+p3767-0005-super", "nvidia,p3767-0005", "nvidia,tegra234"),
    ]
    assert "VDD_IN" in jetson.ssh("cat /sys/bus/i2c/drivers/ina3221/1-0040/hwmon/hwmon*/in1_label")
    lines = jetson.ssh("timeout 20 tegrastats --interval 200 | head -n 4").splitlines()
    assert len(lines) == 4
    assert re.search(r" RAM \d+/\d+MB .*CPU \[\d+%@\d+.*cpu@\d+\.\d+C .*VDD_IN \d+mW/\d+mW", lines[-1])
    assert jetson.ssh("nvpmodel -q") == "NV Power Mode: 15W\n0"
    assert jetson.try_ssh("nvpmodel -m 2").returncode != 0  # only root may
    jetson.ssh("nvpmodel -m 2", user="root")
    assert jetson.ssh("nvpmodel -q") == "NV Power Mode: MAXN_SUPER\n2"
    jetson.ssh("nvpmodel -m 0; jetson_clocks --store; jetson_clocks; jetson_clocks --restore", user="root")


def test_a_made_pi_looks_like_one_and_throttles_when_it_is_hot(pi5: Board) -> None:
    assert pi5.ssh("tr -d '\\0' < /proc/device-tree/model") == "Raspberry Pi 5 Model B Rev 1.0"
    assert pi5.ssh("vcgencmd get_throttled") == "throttled=0x0"
    assert pi5.ssh("vcgencmd pmic_read_adc | grep -c current") == "12"
    assert re.fullmatch(r"temp=\d+\.\d'C", pi5.ssh("vcgencmd measure_temp"))
    assert pi5.ssh("vcgencmd nonsense") == 'error=1 error_msg="Command not registered"'
    pi5.warm_to(120)
    until(lambda: pi5.ssh("vcgencmd get_throttled") == "throttled=0x60006", "the board to throttle")
    pi5.warm_to(10)
    until(lambda: pi5.ssh("vcgencmd get_throttled") == "throttled=0x60000", "the board to cool down")
    pi5.reboot()
    until(lambda: pi5.ssh("vcgencmd get_throttled") == "throttled=0x0", "the board to forget")
    pi5.ssh("rm -f /dev/vcio", user="root")
    assert "Can't open device file" in pi5.try_ssh("vcgencmd measure_temp").stdout


def test_a_made_desktop_counts_energy_that_only_root_may_read_and_it_wraps(desktop: Board) -> None:
    counter = "/sys/class/powercap/intel-rapl:0/energy_uj"
    assert "Permission denied" in desktop.try_ssh(f"cat {counter}").stderr
    limit = int(desktop.ssh("cat /sys/class/powercap/intel-rapl:0/max_energy_range_uj"))
    # It begins 30 J before its end.
    until(lambda: int(desktop.ssh(f"cat {counter}", user="root")) < limit // 2, "the counter to wrap")
    assert desktop.try_ssh("ls /proc/device-tree").returncode != 0


def test_what_a_made_board_draws_follows_what_runs_on_it(jetson: Board) -> None:
    work = "i=0; while [ $i -lt 1000000 ]; do i=$((i + 1)); done; read -r ns _ < /proc/$$/schedstat; echo $ns"
    until(jetson.truth.rows, "the truth to begin")
    begin = jetson.truth.rows()[-1][0]
    worked_s = int(jetson.ssh(f"sh -c '{work}'")) / 1e9
    rows = [row for row in jetson.truth.rows() if row[0] >= begin]
    assert all(after[0] > before[0] for before, after in pairwise(rows))
    first, last = rows[0][0], rows[-1][0]
    drawn = jetson.truth.joules(first, last)
    at_rest = PHYSICS["jetson"].idle_w * (last - first) / 1e9
    # sshd and the shell that starts it work too.
    assert worked_s * 0.9 < (drawn - at_rest) / PHYSICS["jetson"].core_w < worked_s * 1.3 + 0.5
    # The time of the truth is the board's own.
    assert abs(uptime_s(jetson) - last / 1e9) < 5


# --- and nothing stays ---


def _born(pid: int) -> str:
    """When a process of this machine was started, which with its number names it; empty where there is none."""
    stat = _bytes(Path(f"/proc/{pid}/stat")).decode(errors="replace")
    return stat.rpartition(")")[2].split()[19] if stat else ""


def _bytes(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError:
        return b""


@pytest.mark.alone
@pytest.mark.parametrize("kind", ["plain", "arm64", "jetson"])
def test_nothing_of_a_target_stays(kind: str, tmp_path: Path, lab_keys: Keys) -> None:
    formats = sorted(os.listdir("/proc/sys/fs/binfmt_misc"))
    starts = {"plain": plain_room, "arm64": arm64_rootfs}
    if kind in starts:
        target = starts[kind](tmp_path / "target", lab_keys)
    else:
        target = made_board(kind, tmp_path / "target", lab_keys)
    with target as one:
        one.ssh("sleep 300 < /dev/null > /dev/null 2>&1 &")
        until(lambda: "sleep 300" in str(one.room.processes()), "the program to run")
        born = {pid: _born(pid) for pid in one.room.processes()}
        one.wire.delay(1)
        cards = {one.wire.card, f"{one.wire.card}t"}
        assert cards <= {name for _, name in socket.if_nameindex()}
    assert [pid for pid in born if _born(pid) == born[pid] != ""] == []
    assert not cards & {name for _, name in socket.if_nameindex()}
    assert str(tmp_path) not in Path("/proc/self/mounts").read_text()
    assert sorted(os.listdir("/proc/sys/fs/binfmt_misc")) == formats
    # Nobody who holds its namespaces: the supervisor, the relay and the simulator are told this folder.
    assert [p for p in Path("/proc").glob("[0-9]*/cmdline") if str(tmp_path).encode() in _bytes(p)] == []
