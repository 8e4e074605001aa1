"""Devices over a real sshd on loopback: added, listed, shown, examined, moved, swapped, removed.

The board is this machine. Another board is this machine with another /etc/machine-id bound into sshd's mount namespace.
"""

from __future__ import annotations

import contextlib
import json
import os
import pty
import select
import shutil
import signal
import socket
import subprocess
import sys
import time
import tomllib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from cli import Bench
from jsoncheck import NAMED, problems
from sshd_kit import PROGRAMS, Sshd, folder_for_all, lab_user, start_sshd

from meltbench import site
from meltbench.probe.job import Job
from meltbench.report.progress import Quiet
from meltbench.targets import Place

BOARDS = ("a1b2c3d4" * 4, "b1b2c3d4" * 4)
# The kernel may know this machine by more than its machine id: none of that is shown to sshd's namespace.
SWAP = 'mount --bind "$1" /etc/machine-id && mount -t tmpfs none /sys/class/net && shift && exec "$@"'
Start = Callable[..., Sshd]


@dataclass
class Shelf:
    """Boards on one network: each an sshd with a machine id of its own."""

    folder: Path
    running: list[Sshd] = field(default_factory=list)

    def start(self, board: int = 0, **more: Any) -> Sshd:
        """Start a board; its home is kept where it was on before."""
        identity = self.folder / f"machine-id-{board}"
        identity.write_text(f"{BOARDS[board]}\n")
        words = ("unshare", "--mount", "--propagation", "private", "sh", "-c", SWAP, "sh", str(identity))
        sshd = start_sshd(self.folder / f"board{board}", prefix=words, programs=(*PROGRAMS, "rmdir"), **more)
        self.running.append(sshd)
        return sshd


@pytest.fixture
def shelf() -> Iterator[Shelf]:
    lab_user()
    if shutil.which("unshare") is None or subprocess.run(["unshare", "--mount", "true"]).returncode:
        pytest.skip("no mount namespace can be made here: another board needs one")
    with folder_for_all() as folder:
        one = Shelf(folder)
        yield one
        for sshd in one.running:
            with contextlib.suppress(ProcessLookupError):
                sshd.stop()


@pytest.fixture
def lab(bench: Bench, shelf: Shelf) -> Bench:
    """A controller with an inventory and a known_hosts of its own."""
    own = {"XDG_CONFIG_HOME": str(bench.home / "config"), "MELTBENCH_INVENTORY": str(bench.home / "inventory.toml")}
    bench.env |= own
    return bench


def use(bench: Bench, sshd: Sshd) -> Sshd:
    bench.env["MELTBENCH_SSH_CONFIG"] = str(sshd.config_path)
    return sshd


def add(bench: Bench, name: str, sshd: Sshd, *more: str, code: int = 0) -> Any:
    done = bench.run("devices", "add", name, "--ssh", sshd.address, *more, "--json")
    assert done.returncode == code, done.stderr
    return json.loads(done.stdout) if code == 0 else done.stderr.splitlines()[-1]


def listed(bench: Bench) -> dict[str, Any]:
    rows = json.loads(bench.run("devices", "list", "--json").stdout)
    assert problems(NAMED["inventory"], rows) == []
    return {row["name"]: row for row in rows}


def test_a_board_is_added_listed_shown_examined_and_removed(lab: Bench, shelf: Shelf) -> None:
    sshd = use(lab, shelf.start())
    made = add(lab, "shelf", sshd)
    assert problems(NAMED["device added"], made) == []
    assert (made["outcome"], made["profile"], made["identity_from"]) == ("added", "linux-desktop", "/etc/machine-id")
    assert made["root"] == f"{sshd.home}/.meltbench"
    assert [*tomllib.loads((lab.home / "inventory.toml").read_text())] == ["shelf"]
    row = listed(lab)["shelf"]
    assert (row["reachable"], row["why"], row["busy"], row["verdict"]) == (True, None, "", None)
    assert row["disk_free_bytes"] > 0
    other = sshd.home / ".meltbench" / "bin" / "meltprobe-0"  # of another kind of machine, which has the same home
    other.write_bytes(b"\x7fELF" + bytes(60))
    other.chmod(0o755)
    assert listed(lab)["shelf"]["reachable"]

    assert lab.run("devices", "doctor", "shelf").stdout.startswith("shelf: ")
    done = lab.run("devices", "doctor", "shelf", "--json")
    found = json.loads(done.stdout)
    assert problems(NAMED["doctor"], found) == []
    seen = {one["what"]: one for one in found["findings"]}
    assert seen["reached"]["verdict"] == seen["probe"]["verdict"] == seen["board"]["verdict"] == "ok"
    assert seen["user"]["seen"].startswith("meltlab, groups")
    assert seen["free"]["seen"] == "yes"
    assert seen["source cpu"]["seen"].startswith("readable")
    assert seen["clock"]["seen"].startswith("as ours")
    assert (done.returncode == 1) == (found["verdict"] == "problem")
    assert listed(lab)["shelf"]["verdict"] == found["verdict"]
    assert [*(sshd.home / ".meltbench" / "runs").glob("doctor-*")] == [], "an examination leaves nothing behind"

    known = json.loads(lab.run("devices", "show", "shelf", "--json").stdout)
    assert problems(NAMED["device known"], known) == []
    assert (known["reachable"], known["verdict"]) == (True, found["verdict"])
    plain = lab.run("devices", "show", "shelf").stdout
    assert "  reachable" in plain
    assert "source rapl: rapl every 19 ms" in plain
    names = lab.run("devices").stdout.splitlines()
    assert names[0].startswith("shelf ")
    assert any(line.startswith("rpi5 ") for line in names)

    assert lab.run("devices", "remove", "shelf").returncode == 0
    assert (sshd.home / ".meltbench" / "bin").is_dir(), "nothing on the device was touched"
    assert "shelf" not in listed(lab)
    missing = lab.run("devices", "remove", "shelf")
    assert (missing.returncode, "unknown device of the inventory 'shelf'" in missing.stderr) == (2, True)


def test_a_board_that_moved_is_the_same_and_one_in_its_place_is_not(lab: Bench, shelf: Shelf) -> None:
    first = use(lab, shelf.start())
    made = add(lab, "shelf", first)
    first.stop()
    moved = use(lab, shelf.start())
    assert moved.address != first.address
    assert "no link" in lab.run("devices", "list").stdout
    again = add(lab, "shelf", moved)
    assert (again["outcome"], again["was"], again["identity"]) == ("moved", first.address, made["identity"])

    moved.stop()
    other = use(lab, shelf.start(1, port=moved.port))
    row = listed(lab)["shelf"]
    assert (row["reachable"], row["last_seen"] is not None) == (False, True)
    assert "nobody can tell which board it is; meltbench devices add shelf" in row["why"]
    assert "no probe" in lab.run("devices", "list").stdout
    done = lab.run("devices", "doctor", "shelf")
    assert done.returncode == 1
    assert "Another board answers" in done.stdout
    assert "source" not in done.stdout
    assert "another board answers" in listed(lab)["shelf"]["why"], "the doctor has put the probe there"
    built = lab.run("runners", "build", "llamacpp", "--on-device", "shelf")
    assert (built.returncode, "another board answers" in built.stderr) == (1, True), built.stderr
    said = add(lab, "shelf", other, code=1)
    assert "shelf is another board" in said
    assert "meltbench devices remove shelf" in said
    assert add(lab, "second", other)["outcome"] == "added"


def test_a_board_has_one_name(lab: Bench, shelf: Shelf) -> None:
    sshd = use(lab, shelf.start())
    made = add(lab, "shelf", sshd)
    refused = add(lab, "desk", sshd, code=2)
    assert "this board is shelf already" in refused
    renamed = add(lab, "desk", sshd, "--rename")
    assert (renamed["outcome"], renamed["was"], renamed["added"]) == ("renamed", "shelf", made["added"])
    rows = listed(lab)
    assert [*rows] == ["local", "desk"]
    assert rows["desk"]["last_seen"] is not None


def test_a_host_key_that_nobody_knows_is_accepted_by_its_fingerprint_alone(lab: Bench, shelf: Shelf) -> None:
    sshd = use(lab, shelf.start(known=False))
    refused = add(lab, "shelf", sshd, code=1)
    assert sshd.host_key_fingerprint in refused
    assert "--accept-key" in refused
    wrong = add(lab, "shelf", sshd, "--accept-key", "SHA256:" + "A" * 43, code=1)
    assert f"is not known: it shows {sshd.host_key_fingerprint} (ssh-ed25519), not SHA256:AAA" in wrong
    assert not (lab.home / "inventory.toml").exists()
    add(lab, "shelf", sshd, "--accept-key", sshd.host_key_fingerprint)
    assert listed(lab)["shelf"]["reachable"]
    assert sshd.known_hosts.read_text() == "", "the user's own file is left as it is"


def on_a_terminal(bench: Bench, answer: str, *args: str, seconds: float = 60) -> tuple[int, str]:
    """Run a command as at a terminal, and give that answer to its question."""
    pid, terminal = pty.fork()
    if pid == 0:
        os.chdir(bench.home)
        os.execve(sys.executable, [sys.executable, "-m", "meltbench", *args], bench.environment())
    text, answered, end = "", False, time.monotonic() + seconds
    while time.monotonic() < end:
        if select.select([terminal], [], [], 0.1)[0]:
            try:
                text += os.read(terminal, 65536).decode("utf-8", "replace")
            except OSError:
                break
        if "[y/N]" in text and not answered:
            os.write(terminal, f"{answer}\n".encode())
            answered = True
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)  # one that has ended waits to be reaped, and cannot be killed
    os.close(terminal)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), text


def test_on_a_terminal_a_host_key_is_shown_and_asked_about(lab: Bench, shelf: Shelf) -> None:
    sshd = use(lab, shelf.start(known=False))
    code, text = on_a_terminal(lab, "n", "devices", "add", "shelf", "--ssh", sshd.address)
    assert (code, sshd.host_key_fingerprint in text) == (1, True)
    assert not (lab.home / "inventory.toml").exists()
    code, text = on_a_terminal(lab, "y", "devices", "add", "shelf", "--ssh", sshd.address)
    assert code == 0, text
    assert "next: meltbench run --device shelf" in text


def test_a_list_asks_nobody_for_a_password(lab: Bench, shelf: Shelf) -> None:
    """At a terminal, of a device that wants one: its server knows no key of ours, and takes passwords."""
    sshd = use(lab, shelf.start(options=("PasswordAuthentication yes",)))
    add(lab, "shelf", sshd)
    (sshd.folder / "authorized_keys").write_text("")
    code, text = on_a_terminal(lab, "", "devices", "list", seconds=20)
    assert code == 0, text
    assert "assword of" not in text
    assert "refused" in text
    code, text = on_a_terminal(lab, "", "devices", "doctor", "shelf", seconds=5)
    assert "assword of" in text, "else this test says nothing"


def test_a_device_that_measures_is_busy_and_left_alone(
    lab: Bench, shelf: Shelf, monkeypatch: pytest.MonkeyPatch
) -> None:
    sshd = use(lab, shelf.start())
    add(lab, "shelf", sshd)
    monkeypatch.setenv("MELTBENCH_SSH_CONFIG", str(sshd.config_path))
    probe = site.reach(Place("ssh", sshd.address), None, Quiet())
    job = Job("20260101T000000Z-abcdef")
    job.idle("long", 300)
    folder = probe.start(job)
    try:
        assert listed(lab)["shelf"]["busy"] == "runs 20260101T000000Z-abcdef"
        found = json.loads(lab.run("devices", "doctor", "shelf", "--json").stdout)
        seen = {one["what"]: one for one in found["findings"]}
        assert seen["free"]["seen"] == "no: 20260101T000000Z-abcdef is under way"
        assert seen["sensors"]["seen"].startswith("not looked at")
        purge = lab.run("devices", "remove", "shelf", "--purge", "--force")
        assert (purge.returncode, "a run is under way on shelf" in purge.stderr) == (1, True)
        probe.stop(folder)
        probe.lease_take("somebody", 60_000)
        assert listed(lab)["shelf"]["busy"] == "held by somebody"
        purge = lab.run("devices", "remove", "shelf", "--purge", "--force")
        assert (purge.returncode, "shelf is leased: somebody" in purge.stderr) == (1, True), purge.stderr
        probe.lease_drop(probe.lease_show()["token"])
    finally:
        probe.stop(folder)
        probe.transport.close()
    assert listed(lab)["shelf"]["busy"] == ""


def made_tree(lab: Bench, sshd: Sshd, base: str, files: dict[str, str]) -> None:
    """A made /sys and /proc that others may read, and the profile ``made`` that looks there."""
    root = sshd.folder / "tree"
    for path, text in files.items():
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_bytes(text.encode("latin-1"))
    (lab.home / "devices").mkdir(exist_ok=True)
    roots = f'[roots]\nsys = "{root}/sys"\nproc = "{root}/proc"\n'
    (lab.home / "devices" / "made.toml").write_text(f'inherits = "{base}"\n{roots}')


def program(sshd: Sshd, name: str, script: str) -> None:
    """A made program in the search path of the board."""
    (sshd.folder / "bin" / name).write_text(f"#!/bin/sh\n{script}\n")
    (sshd.folder / "bin" / name).chmod(0o755)


def examined(lab: Bench) -> dict[str, Any]:
    found = json.loads(lab.run("devices", "doctor", "shelf", "--json").stdout)
    assert problems(NAMED["doctor"], found) == []
    return {one["what"]: one for one in found["findings"]}


POLICY = "sys/devices/system/cpu/cpufreq/policy0"


def test_a_made_pi_5_is_examined_by_somebody_who_knows_it(lab: Bench, shelf: Shelf) -> None:
    sshd = use(lab, shelf.start())
    tree = "proc/device-tree/"
    texts = {"model": "Raspberry Pi 5 Model B Rev 1.0", "compatible": "raspberrypi,5-model-b\0brcm,bcm2712"}
    files = {f"{tree}{key}": f"{text}\0" for key, text in (texts | {"serial-number": "1a2b3c4d5e6f7081"}).items()}
    files |= {f"{tree}chosen/power/max_current": "\x00\x00\x0b\xb8", f"{POLICY}/scaling_governor": "ondemand\n"}
    zone = "sys/class/thermal/thermal_zone0"
    files |= {f"{zone}/type": "cpu-thermal\n", f"{zone}/temp": "48200\n"}
    made_tree(lab, sshd, "rpi5", files)
    program(
        sshd,
        "vcgencmd",
        'case $1 in get_throttled) echo "throttled=0x50000";; *) echo "VCHI initialization failed"; exit 255;; esac',
    )
    made = add(lab, "shelf", sshd, "--profile", "made")
    assert made["identity_from"] == "/proc/device-tree/serial-number"
    seen = examined(lab)
    assert "under-voltage" in seen["throttling"]["seen"] or "slowed" in seen["throttling"]["seen"]
    assert "27 W supply" in seen["supply"]["mend"]
    assert "usermod -aG video meltlab" in seen["source firmware_temp"]["mend"]
    assert seen["source pmic"]["mend"] == "As said of firmware_temp."
    assert seen["source pmic"]["verdict"] == seen["energy"]["verdict"] == "problem"
    assert "echo performance" in seen["governor"]["mend"]
    assert seen["temperature"]["seen"].startswith("48 degC")
    (lab.home / "devices" / "rpi5.toml").write_text("title = 3\n")  # somebody's half-written file
    assert lab.run("devices", "list").returncode == 0


def test_a_made_jetson_tells_its_rails_and_modes(lab: Bench, shelf: Shelf) -> None:
    sshd = use(lab, shelf.start())
    names = "nvidia,p3768-0000+p3767-0005\0nvidia,p3767-0005\0nvidia,tegra234"
    files = {"proc/device-tree/compatible": f"{names}\0", "proc/device-tree/serial-number": "1421123456789\0"}
    chip = "sys/bus/i2c/drivers/ina3221/1-0040/hwmon/hwmon1"
    for n, rail in enumerate(("VDD_IN", "VDD_CPU_GPU_CV", "VDD_SOC"), 1):
        files |= {
            f"{chip}/in{n}_label": f"{rail}\n",
            f"{chip}/in{n}_input": "5000\n",
            f"{chip}/curr{n}_input": "1000\n",
        }
    made_tree(lab, sshd, "jetson-orin-nano", files)
    program(sshd, "nvpmodel", 'echo "NV Power Mode: 15W"; echo 0')
    program(sshd, "tegrastats", 'while :; do echo "RAM 1/2MB cpu@41.5C VDD_IN 5000mW/5000mW"; sleep 0.3; done')
    add(lab, "shelf", sshd, "--profile", "made")
    seen = examined(lab)
    assert "VDD_IN.power 5.00 W" in seen["source ina3221"]["seen"]
    assert seen["energy"]["seen"] == "of ina3221.VDD_IN.power (module, 5 W now)"
    assert "VDD_IN.power 5.00 W" in seen["source tegrastats"]["seen"]
    assert seen["power mode"]["seen"] == "15W"
    assert seen["accelerator"]["seen"] == "NVIDIA tegra234"
    running = subprocess.run(["pgrep", "-f", "cpu@41.5C VDD_IN"], capture_output=True, text=True).stdout
    assert running == "", "no program of an examination outlives it"


def test_nobody_waits_for_a_device_that_is_not_there(lab: Bench, shelf: Shelf) -> None:
    """192.0.2.1 is nobody's (RFC 5737); a closed port answers at once; a listener that never greets is silent."""
    sshd = use(lab, shelf.start())
    add(lab, "shelf", sshd)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        port = silent.getsockname()[1]
        entries = {"nowhere": "pi@192.0.2.1", "closed": "pi@127.0.0.1:9", "silent": f"pi@127.0.0.1:{port}"}
        with (lab.home / "inventory.toml").open("a") as file:
            for name, address in entries.items():
                file.write(f'\n[{name}]\nprofile = "rpi5"\nssh = "{address}"\n')
        rows = listed(lab)
    assert rows["shelf"]["reachable"]
    for name in entries:
        assert rows[name]["reachable"] is False
        assert rows[name]["why"]
        assert rows[name]["last_seen"] is None
    done = lab.run("devices", "doctor", "closed", "--json")
    (finding,) = json.loads(done.stdout)["findings"]
    assert (done.returncode, finding["what"], finding["verdict"]) == (1, "reached", "problem")
    shown = lab.run("devices", "show", "closed").stdout
    assert "nobody has reached it" in shown
    assert "source pmic" in shown


def test_a_purge_removes_what_is_ours_alone(lab: Bench, shelf: Shelf) -> None:
    sshd = use(lab, shelf.start())
    root = sshd.home / "bench"
    root.mkdir()
    shutil.chown(root, "meltlab")
    (root / "photos").write_text("somebody's")
    assert add(lab, "shelf", sshd, "--workdir", str(root))["root"] == str(root)
    run = root / "runs" / "20260101T000000Z-abcdef"
    run.mkdir()
    (run / "journal").write_bytes(b"MELTJNL1")
    (run / "state").write_text('{"state": "ended"}')
    for path in (run, *run.iterdir()):
        shutil.chown(path, "meltlab")
    kept = lab.run("devices", "remove", "shelf", "--purge")
    assert (kept.returncode, "20260101T000000Z-abcdef" in kept.stderr) == (2, True), kept.stderr
    assert run.is_dir()
    assert "shelf" in listed(lab)
    found = json.loads(lab.run("devices", "doctor", "shelf", "--json").stdout)
    (waits,) = [one for one in found["findings"] if one["what"] == "runs there"]
    assert "20260101T000000Z-abcdef" in waits["seen"]
    done = lab.run("devices", "remove", "shelf", "--purge", "--force")
    assert done.returncode == 0, done.stderr
    assert [path.name for path in root.iterdir()] == ["photos"]
    add(lab, "shelf", sshd)
    assert lab.run("devices", "remove", "shelf", "--purge").returncode == 0
    assert not (sshd.home / ".meltbench").exists()


def test_a_folder_where_no_program_may_run_is_told_before_anything_else(lab: Bench, shelf: Shelf) -> None:
    sshd = use(lab, shelf.start())
    add(lab, "shelf", sshd)
    where = sshd.home / "card"
    where.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "noexec,mode=777", "none", str(where)], check=True)
    try:
        sshd.stop()  # a namespace of its own sees no later mount
        use(lab, shelf.start(port=sshd.port))
        text = (lab.home / "inventory.toml").read_text()
        (lab.home / "inventory.toml").write_text(f'{text}workdir = "{where}"\n')
        done = lab.run("devices", "doctor", "shelf")
    finally:
        subprocess.run(["umount", "--lazy", str(where)], check=True)
    assert done.returncode == 1
    assert "noexec" in done.stdout
    assert "--workdir /a/folder/elsewhere" in done.stdout


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("add", "local", "--ssh", "a"), "local is the machine meltbench runs on"),
        (("add", "a b", "--ssh", "a"), "is no name for a device"),
        (("add", "pi5", "--ssh", "pi:secret@a"), "password"),
        (("add", "pi5", "--ssh", "-oProxyCommand=x"), "address"),
        (("add", "pi5", "--ssh", "a", "--profile", "rpi55"), "did you mean rpi5"),
        (("add", "pi5", "--ssh", "a", "--workdir", "relative"), "is no absolute path"),
        (("remove", "pi5"), "unknown device of the inventory 'pi5'"),
        (("remove", "pi5", "--force"), "add --purge"),
        (("doctor", "rpi5"), "meltbench devices add rpi5 --ssh USER@HOST"),
        (("doctor", "lokal"), "did you mean local"),
        (("show", "lokal"), "did you mean local"),
    ],
)
def test_what_cannot_be_done_with_the_inventory_is_one_line(bench: Bench, words: tuple[str, ...], said: str) -> None:
    bench.env["MELTBENCH_INVENTORY"] = str(bench.home / "inventory.toml")
    done = bench.run("devices", *words)
    assert done.returncode == 2
    assert said in done.stderr
    assert "secret" not in done.stderr
    assert done.stderr.count("\n") == 1
    assert not (bench.home / "inventory.toml").exists()


def test_an_inventory_that_is_damaged_is_one_line_for_every_command(bench: Bench) -> None:
    path = bench.home / "inventory.toml"
    path.write_text('[pi5]\nprofile = "rpi5"\nsssh = "x"\n')
    bench.env["MELTBENCH_INVENTORY"] = str(path)
    for words in ((), ("list",), ("doctor",), ("remove", "pi5")):
        done = bench.run("devices", *words)
        assert done.returncode == 2, words
        assert done.stderr == f"meltbench: {path}: pi5: unknown key 'sssh'; did you mean 'ssh'?\n"
