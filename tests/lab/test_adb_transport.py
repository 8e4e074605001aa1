"""The transport `adb` against Android's own adbd and a real adb server: commands, files, programs that answer, servers
that die, phones that go away and come back under another name."""

from __future__ import annotations

import os
import re
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest
from adb_gate import unauthorized
from adb_kit import Server
from phones_kit import Phone, made_phone
from targets_kit import until
from transport_kit import floods_are_bounded, no_shell_sees_arguments, soon, stdin_is_what_is_fed

from meltbench import site
from meltbench.deadline import Deadline
from meltbench.errors import DeadlineExceeded, DeviceError, LinkLost, ManyDevices, UserError
from meltbench.report.progress import Quiet
from meltbench.targets import Feed, Place, connect, inventory
from meltbench.targets.adb.server import Server as AdbServer
from meltbench.targets.adb.transport import AdbTransport
from meltbench.targets.cache import PushCache
from meltbench.targets.facts import identity_of

pytestmark = pytest.mark.usefixtures("own_place", "its_server")
TMP = "/data/local/tmp"
SERIAL = "1A2B3C4D5E6F7G"


@pytest.fixture
def its_server(adb: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    """Adb's own variables name the tests' server, also to one that meltbench starts."""
    for name, value in adb.environment.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("HOME", str(adb.folder))


@pytest.fixture
def to(phone: Phone) -> Iterator[AdbTransport]:
    transport = AdbTransport(phone.serial)
    yield transport
    transport.close()


def test_arguments_are_never_seen_by_a_shell(to: AdbTransport) -> None:
    no_shell_sees_arguments(to)


def test_a_status_a_signal_and_a_complaint(to: AdbTransport) -> None:
    done = to.run(["sh", "-c", "echo out; echo no >&2; exit 7"], soon())
    assert (done.code, done.stdout, done.stderr) == (7, b"out\n", b"no\n")
    for number in (signal.SIGHUP, signal.SIGKILL, signal.SIGILL, signal.SIGSEGV):
        assert to.run(["sh", "-c", f"kill -{number} $$"], soon()).code == -number
    done = to.run(["/nowhere/program"], soon())
    assert done.code == 127
    assert "not found" in done.complaint()


def test_a_command_that_hangs_is_ended_at_its_deadline(to: AdbTransport, phone: Phone) -> None:
    with pytest.raises(DeadlineExceeded):
        to.run(["sleep", "61"], Deadline.after(1))
    until(lambda: "sleep 61" not in phone.room.processes().values(), "the command to be ended")


def test_floods_are_bounded_on_both_streams(to: AdbTransport) -> None:
    floods_are_bounded(to)


def test_stdin_is_what_is_fed_and_empty_without(to: AdbTransport, tmp_path: Path) -> None:
    data = os.urandom(5 << 20)
    assert stdin_is_what_is_fed(to, data, tmp_path / "file") == 4 << 20
    done = to.run(["sh", "-c", "head -c 3; exit 9"], soon(), feed=Feed(data))  # it ends before it has taken all
    assert done.code == 9
    assert done.stdout in (data[:3], b"")  # which adbd may lose then
    for _ in range(5):
        done = to.run(["sh", "-c", "echo full >&2; exit 9"], soon(), feed=Feed(bytes(32 << 20)))
        assert (done.code, done.stderr) == (9, b"full\n")


def test_push_and_pull_are_whole_or_not_at_all(to: AdbTransport, phone: Phone, tmp_path: Path) -> None:
    data = os.urandom((3 << 20) + 7)
    (tmp_path / "file").write_bytes(data)
    to.push(tmp_path / "file", f"{TMP}/a folder/it's", soon(), executable=True)
    assert phone.shell(f'stat -c %a "{TMP}/a folder/it\'s"') == "755"
    to.pull(f"{TMP}/a folder/it's", tmp_path / "back", soon())
    assert (tmp_path / "back").read_bytes() == data
    with pytest.raises(DeviceError, match="Permission denied; check the permissions"):
        to.push(b"x", "/system/x", soon())
    with pytest.raises(DeviceError, match="No such file"):
        to.pull(f"{TMP}/nowhere", tmp_path / "none", soon())
    phone.room.path(f"{TMP}/closed").touch(mode=0)
    with pytest.raises(DeviceError, match="Permission denied"):
        to.pull(f"{TMP}/closed", tmp_path / "none", soon())
    assert not (tmp_path / "none").exists()
    assert phone.shell(f"ls -A '{TMP}/a folder'") == "it's"


@pytest.mark.alone  # gigabytes through two pipes hold up everybody
@pytest.mark.timeout(600)
def test_a_file_of_more_than_four_gib_arrives_whole(tmp_path: Path, adb: Server, probe_binary: Path) -> None:
    """As a model does, by the push cache; a size of 32 bits would be cut."""
    del probe_binary  # built before
    (available,) = re.findall(r"MemAvailable: +(\d+) kB", Path("/proc/meminfo").read_text())
    if int(available) < 10 << 20:
        pytest.skip(f"the phone's disk lies in memory: 10 GiB are needed, {int(available) >> 20} GiB are free")
    size, source = (4 << 30) + 5, tmp_path / "large.gguf"
    marks = {0: b"first", (4 << 30) - 2: b"here", size - 1: b"!"}
    with source.open("wb") as file:
        for at, text in marks.items():
            file.seek(at)
            file.write(text)
    with made_phone(tmp_path / "phone", adb, serial="LARGE", disk_bytes=5 << 30) as large:
        probe = site.reach(Place("adb", large.serial), None, Quiet())
        there = PushCache.beside(probe).ensure([source], Quiet())[source]
        probe.transport.close()
        with large.room.path(there).open("rb") as file:
            for at, text in marks.items():
                file.seek(at)
                assert file.read(len(text)) == text
            assert file.seek(0, os.SEEK_END) == size


def test_a_push_to_a_full_disk_leaves_nothing(to: AdbTransport, phone: Phone) -> None:
    phone.fill_disk(1 << 20)
    try:
        with pytest.raises(DeviceError, match="No space left on device; free some space and try again"):
            to.push(bytes(8 << 20), f"{TMP}/big/file", soon())
        assert phone.shell(f"ls -A {TMP}/big") == ""
    finally:
        phone.free_disk()


def test_a_push_that_is_cut_off_leaves_nothing(to: AdbTransport, phone: Phone, tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(bytes(512 << 20))
    there = phone.room.path(f"{TMP}/cut")

    def cut() -> None:
        until(lambda: any(there.glob(".file.*")), "the push to begin")
        phone.kill_adbd()

    cutting = threading.Thread(target=cut)
    cutting.start()
    phone.wire.delay(20)  # slow enough that it is in the midst of the push also where the thread comes late
    try:
        with pytest.raises(LinkLost):
            to.push(tmp_path / "file", f"{TMP}/cut/file", Deadline.after(60))
    finally:
        cutting.join()
        phone.wire.restore()
        phone.connect()
    until(lambda: list(there.iterdir()) == [], "what came of it to go")


def test_a_channel_answers_line_by_line(to: AdbTransport) -> None:
    channel = to.spawn(["sh", "-c", 'while read -r l; do echo "<$l>"; done'], soon())
    assert channel.ask(b"one", soon()) == b"<one>\n"
    assert channel.ask(b"two", soon()) == b"<two>\n"
    hangs = to.spawn(["sleep", "60"], soon())
    with pytest.raises(DeadlineExceeded):
        hangs.ask(b"hello", Deadline.after(0.5))
    hangs.close()
    channel.close()
    channel.close()
    ended = to.spawn(["true"], soon())
    with pytest.raises(DeviceError, match="ended or answered nonsense"):
        ended.ask(b"hello", soon())
    ended.close()


def test_nothing_is_sent_before_a_call_and_a_channel_ends_with_the_transport(phone: Phone) -> None:
    transport = AdbTransport("nobody:1")
    transport.close()
    transport = AdbTransport(phone.serial)
    channel = transport.spawn(["cat"], soon())
    found: list[BaseException] = []

    def wait() -> None:
        try:
            channel.ask(b"", Deadline.after(60))
            channel.ask(b"", Deadline.after(60))
        except DeviceError as error:
            found.append(error)

    waiting = threading.Thread(target=wait)
    waiting.start()
    time.sleep(0.3)
    transport.close()
    waiting.join(10)
    channel.close()
    assert not waiting.is_alive()


def test_prose_of_the_shell_spoils_no_output(tmp_path: Path, adb: Server) -> None:
    with made_phone(tmp_path, adb, "galaxy-s23", "R58N00000", prose=True) as talker:
        assert talker.shell("echo x") != "x"
        to = AdbTransport(talker.serial)
        assert to.run(["echo", "x"], soon()).stdout == b"x\n"
        to.push(b"content", f"{TMP}/file", soon())
        to.pull(f"{TMP}/file", tmp_path / "back", soon())
        assert (tmp_path / "back").read_bytes() == b"content"
        channel = to.spawn(["cat"], soon())
        assert channel.ask(b"hello", soon()) == b"hello\n"
        channel.close()


def test_a_server_that_was_killed_is_started_and_told_of_the_phone(to: AdbTransport, phone: Phone) -> None:
    assert to.run(["echo", "a"], soon()).stdout == b"a\n"
    phone.kill_server()
    try:
        assert to.run(["echo", "b"], soon()).stdout == b"b\n"
        assert phone.server.listens()
    finally:
        phone.server.stop()
        phone.start_server()
        phone.connect()


def test_an_adbd_that_was_restarted_is_reached_again(to: AdbTransport, phone: Phone) -> None:
    def reached() -> bool:
        with suppress(LinkLost):  # a busy machine starts it later than a call waits for it
            return to.run(["echo", "a"], soon()).stdout == b"a\n"
        return False

    for _ in range(3):
        phone.kill_adbd()
        until(reached, "the phone to be reached by calls alone")
    with pytest.raises(LinkLost):
        to.run(["sh", "-c", "kill -9 $PPID; sleep 5"], soon())
    until(reached, "the phone to be reached once more")


def test_a_link_that_is_cut_in_a_call_is_noticed_before_its_deadline(to: AdbTransport, phone: Phone) -> None:
    phone.wire.cut()
    try:
        with pytest.raises((LinkLost, DeadlineExceeded)):
            to.run(["sh", "-c", "sleep 60"], Deadline.after(55))
    finally:
        phone.wire.restore()
        phone.connect()
    assert to.run(["echo", "b"], soon()).stdout == b"b\n"


def test_a_phone_that_is_not_there_says_where_to_look(phone: Phone) -> None:
    with pytest.raises(LinkLost, match="NOSUCH is not attached; check its cable"):
        AdbTransport("NOSUCH").run(["true"], soon())
    with pytest.raises(LinkLost, match=r"127\.0\.0\.1:9 is not connected: .*adb pair HOST:PORT"):
        AdbTransport("127.0.0.1:9").run(["true"], soon())


def test_a_phone_that_was_not_allowed_says_what_to_tap(phone: Phone, adb: Server) -> None:
    with unauthorized(phone, adb) as gate, pytest.raises(DeviceError, match="tap Allow under 'Allow USB debugging"):
        AdbTransport(gate.serial).run(["true"], soon())


def test_a_phone_whose_serial_is_gone_is_found_by_its_hardware(phone: Phone) -> None:
    moved = AdbTransport("OLDSERIAL", None, identity_of(SERIAL))
    assert moved.run(["getprop", "ro.serialno"], soon()).stdout.strip() == SERIAL.encode()
    met = AdbTransport(phone.serial)
    assert met.run(["echo", "a"], soon()).stdout == b"a\n"
    met.address = met._serial = "OLDSERIAL"  # as over a cable that became Wi-Fi
    assert met.run(["echo", "b"], soon()).stdout == b"b\n"
    with pytest.raises(LinkLost):
        AdbTransport("OLDSERIAL", None, identity_of("another")).run(["true"], soon())


def test_the_port_of_a_server_of_its_own(phone: Phone, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ANDROID_ADB_SERVER_PORT", "1")
    to = connect(Place("adb", phone.serial, phone.server_port))
    assert to.run(["echo", "a"], soon()).stdout == b"a\n"
    monkeypatch.setenv("ADB_SERVER_SOCKET", f"tcp:127.0.0.1:{phone.server_port}")
    assert AdbTransport(phone.serial).run(["echo", "a"], soon()).stdout == b"a\n"


@pytest.mark.parametrize(
    ("name", "value", "told"),
    [
        ("ANDROID_ADB_SERVER_PORT", "x", "ANDROID_ADB_SERVER_PORT names no port: 'x'"),
        ("ADB_SERVER_SOCKET", "vsock:3:4", "is not tcp:HOST:PORT"),
        ("ADB_SERVER_SOCKET", "tcp:host:99999", "ADB_SERVER_SOCKET names no port"),
    ],
)
def test_an_odd_place_of_the_server_is_one_line(
    name: str, value: str, told: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(name, value)
    with pytest.raises(UserError, match=told):
        AdbServer()


def test_without_a_server_and_adb_one_is_told_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ANDROID_ADB_SERVER_PORT", "9")
    monkeypatch.setenv("ADBUTILS_ADB_PATH", "/nowhere/adb")
    with pytest.raises(DeviceError, match="/nowhere/adb"):
        AdbTransport("X").run(["true"], soon())
    monkeypatch.setenv("ANDROID_ADB_SERVER_ADDRESS", "192.0.2.1")
    with pytest.raises(LinkLost, match=r"no adb server answers at 192\.0\.2\.1:9; start it there"):
        AdbTransport("X").run(["true"], soon())


def test_a_profile_stands_for_the_phone_that_is_attached(phone: Phone, adb: Server, tmp_path: Path) -> None:
    assert inventory.resolve("pixel6").place == Place("adb", phone.serial)
    assert inventory.resolve(f"adb:{phone.serial}").profile_name == "pixel6"
    with pytest.raises(UserError, match=r"no galaxy-s23 is attached: the adb server has .*oriole"):
        inventory.resolve("galaxy-s23")
    with made_phone(tmp_path, adb, serial="SECOND") as second:
        with pytest.raises(ManyDevices, match="2 devices attached are a pixel6") as caught:
            inventory.resolve("pixel6")
        assert set(caught.value.choices) == {f"pixel6@{phone.serial}", f"pixel6@{second.serial}"}
        assert inventory.resolve(f"pixel6@{second.serial}").place == Place("adb", second.serial)


def test_a_profile_of_a_build_stands_for_a_phone_only_where_it_is_named(
    phone: Phone, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "devices").mkdir()
    text = 'title = "one build"\ninherits = "pixel6"\n[match]\nbuild = ["*:16/*"]\n'
    (tmp_path / "devices/pixel6-16.toml").write_text(text)
    monkeypatch.chdir(tmp_path)
    assert inventory.resolve("pixel6-16").place == Place("adb", phone.serial)
    assert inventory.resolve(f"adb:{phone.serial}").profile_name == "pixel6"
