"""What becomes of a board that answers at an address: added, moved, renamed, or refused."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from meltbench.cli.inventory import _trust as trust
from meltbench.enrol import Asked, Enrolled, runs_of, settle
from meltbench.errors import HostKeyError, UserError, WrongDevice
from meltbench.report.inventory import facts_lines
from meltbench.targets import Place
from meltbench.targets.facts import parse
from meltbench.targets.inventory import Entry
from meltbench.targets.matching import Fit

FITS = [Fit("rpi5", "compatible 'raspberrypi,5-model-b'", 14, ("rpi4",)), Fit("linux-desktop", "platform 'linux'", 0)]
PROFILES = {"rpi4", "rpi5", "linux-desktop", "local"}
ROOT = "/home/pi/.meltbench"


def board(serial: str = "a1b2c3d4", **more: str) -> Any:
    files = {"/proc/device-tree/serial-number": serial, "/proc/device-tree/model": "Raspberry Pi 5"} | more
    return parse({"files": {path: {"status": "ok", "text": text} for path, text in files.items()}})


HERE = board()
ASKED = Asked("pi5", Place("ssh", "pi@10.0.0.7"))
KNOWN = Entry("rpi5", "pi@10.0.0.7", HERE.identity, HERE.identity_from, "Raspberry Pi 5", None, "2026-01-01")


def settled(asked: Asked, known: dict[str, Entry], facts: Any = HERE, fits: list[Fit] = FITS) -> Enrolled:
    return settle(asked, known, facts, fits, PROFILES, ROOT)


def test_a_new_board_is_written_down_as_what_it_is() -> None:
    done = settled(ASKED, {})
    assert done.outcome == "added"
    assert replace(done.entry, added=None) == replace(KNOWN, added=None)
    assert done.entry.added is not None
    assert (done.by, done.ties) == ("compatible 'raspberrypi,5-model-b'", ())


def test_profiles_that_fit_as_well_are_told() -> None:
    twice = [FITS[0], replace(FITS[0], name="my-pi", ancestors=())]
    assert settled(ASKED, {}, fits=twice).ties == ("my-pi",)


def test_the_same_board_at_another_address_is_the_same_device() -> None:
    done = settled(replace(ASKED, place=Place("ssh", "pi@10.0.0.9")), {"pi5": KNOWN})
    assert (done.outcome, done.was) == ("moved", "pi@10.0.0.7")
    assert done.entry == replace(KNOWN, ssh="pi@10.0.0.9")
    assert settled(ASKED, {"pi5": KNOWN}).outcome == "unchanged"


def test_an_entry_that_was_written_by_hand_learns_its_board() -> None:
    done = settled(ASKED, {"pi5": Entry("rpi5", "pi@10.0.0.7")})
    assert done.outcome == "moved"
    assert done.entry.identity == HERE.identity


def test_another_board_under_a_name_that_is_taken_is_refused() -> None:
    with pytest.raises(WrongDevice) as caught:
        settled(ASKED, {"pi5": KNOWN}, board("ffff0001"))
    assert "pi5 is another board (Raspberry Pi 5, identity" in caught.value.message
    assert "meltbench devices remove pi5" in str(caught.value)


def test_a_board_has_one_name_and_gets_another_when_it_is_asked_for() -> None:
    asked = replace(ASKED, name="shelf", place=Place("ssh", "pi@10.0.0.9"))
    with pytest.raises(UserError, match=r"this board is pi5 already, at pi@10\.0\.0\.7 .*--rename"):
        settled(asked, {"pi5": KNOWN})
    done = settled(replace(asked, rename=True), {"pi5": KNOWN})
    assert (done.outcome, done.was, done.name) == ("renamed", "pi5", "shelf")
    assert done.entry == replace(KNOWN, ssh="pi@10.0.0.9")
    with pytest.raises(UserError, match="this board is pi5 already"):
        settled(replace(asked, rename=True), {"pi5": KNOWN, "shelf": Entry("rpi5", "pi@10.0.0.9")})


def test_a_board_with_a_copy_of_anothers_card_is_told_how_to_be_itself() -> None:
    clone = parse({"files": {"/etc/machine-id": {"status": "ok", "text": "a" * 16 + "b" * 16}}})
    with pytest.raises(UserError, match="a copy of that one's card"):
        settled(replace(ASKED, name="two"), {"one": replace(KNOWN, identity=clone.identity)}, clone)


def test_a_name_that_is_a_profile_of_another_board_is_refused() -> None:
    with pytest.raises(UserError, match=r"local is a profile, and not of this board \(Raspberry Pi 5: rpi5\)"):
        settled(replace(ASKED, name="local"), {})
    assert settled(replace(ASKED, name="rpi5"), {}).entry.profile == "rpi5"
    assert settled(replace(ASKED, name="rpi4", profile="rpi5"), {}).entry.profile == "rpi5"


def test_the_runs_on_a_device_are_those_with_the_file() -> None:
    files = {f"/r/runs/{name}/journal": {} for name in ("b", "a")} | {"/r/runs/c/state": {}, "/r/runs/*/journal": {}}
    assert runs_of({"files": files}, "journal") == ("a", "b")
    assert runs_of({}, "journal") == ()


def test_what_lies_on_a_device_is_harmless_on_a_terminal() -> None:
    (name,) = runs_of({"files": {"/r/runs/\x1b[2Jgone/journal": {}}}, "journal")
    assert name.isprintable()


def test_a_processor_without_a_name_gets_none() -> None:
    told = facts_lines({"arch": "aarch64", "cores_physical": 4, "cpu": None})
    assert told[1] == "  aarch64, 4 cores"
    assert facts_lines({"arch": "x86_64", "cpu": "Some CPU"})[1] == "  x86_64, Some CPU"


def unreached(state: Any) -> HostKeyError:
    return HostKeyError("it shows SHA256:abc", fingerprint="SHA256:abc", state=state, hint="compare it")


@pytest.mark.parametrize("state", ["unknown", "changed"])
def test_a_host_key_is_accepted_by_its_fingerprint(state: str) -> None:
    trust(unreached(state), "SHA256:abc")
    trust(unreached(state), "SHA256:abc=")
    with pytest.raises(HostKeyError, match="it shows SHA256:abc, not SHA256:x; compare it"):
        trust(unreached(state), "SHA256:x")


def test_a_revoked_host_key_is_accepted_by_nobody() -> None:
    with pytest.raises(HostKeyError):
        trust(unreached("revoked"), "SHA256:abc")


@pytest.mark.parametrize(("state", "asked"), [("unknown", True), ("changed", False), ("revoked", False)])
def test_only_a_host_key_of_an_unknown_server_is_asked_about(
    state: str, asked: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    questions: list[str] = []
    monkeypatch.setattr("sys.stdin.isatty", lambda: True, raising=False)
    monkeypatch.setattr("sys.stderr.isatty", lambda: True, raising=False)
    monkeypatch.setattr("typer.confirm", lambda text, err: questions.append(text) or False)
    with pytest.raises(HostKeyError):
        trust(unreached(state), None)
    assert bool(questions) is asked
