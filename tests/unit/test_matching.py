"""Which profile fits which device: facts as the devices tell them, and those of their nearest relatives."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from meltbench.targets import matching, profile
from meltbench.targets.facts import Facts, parse, properties
from meltbench.targets.matching import Candidate
from meltbench.targets.profile import Match


def board(model: str, *compatible: str) -> Facts:
    """A board by its device tree, whose strings end in NUL."""
    texts = {
        "/proc/device-tree/model": f"{model}\0",
        "/proc/device-tree/compatible": "".join(f"{one}\0" for one in compatible),
    }
    return parse({"files": {path: {"status": "ok", "text": text} for path, text in texts.items()}})


def phone(device: str, maker: str = "Maker", model: str = "Model", **more: str) -> Facts:
    """A phone by its getprop."""
    told = {"ro.product.device": device, "ro.product.manufacturer": maker, "ro.product.model": model}
    told |= {key.replace("__", "."): value for key, value in more.items()}
    text = "".join(f"[{key}]: [{value}]\n" for key, value in told.items())
    return parse({}, said=properties(text.encode()))


def pc(vendor: str, product: str) -> Facts:
    texts = {"/sys/class/dmi/id/sys_vendor": vendor, "/sys/class/dmi/id/product_name": product}
    return parse({"files": {path: {"status": "ok", "text": f"{text}\n"} for path, text in texts.items()}})


ORIN = "NVIDIA Jetson Orin Nano Developer Kit"
DEVICES: list[tuple[Facts, str]] = [
    (board("NVIDIA Jetson Nano Developer Kit", "nvidia,p3450-0000", "nvidia,tegra210"), "jetson-nano"),
    (board("NVIDIA Jetson Nano Developer Kit", "nvidia,jetson-nano", "nvidia,tegra210"), "jetson-nano"),
    (
        board(
            "NVIDIA Jetson Xavier NX Developer Kit",
            *("nvidia,p3449-0000+p3668-0000", "nvidia,p3509-0000+p3668-0000", "nvidia,tegra194"),
        ),
        "jetson-xavier-nx",
    ),
    (board("NVIDIA Jetson AGX Orin", "nvidia,p3737-0000+p3701-0000", "nvidia,tegra234"), "jetson-agx-orin"),
    (board("NVIDIA Jetson AGX Orin", "nvidia,p3737-0000+p3701-0005", "nvidia,tegra234"), "jetson-agx-orin"),
    (board(ORIN, "nvidia,p3768-0000+p3767-0005", "nvidia,p3767-0005", "nvidia,tegra234"), "jetson-orin-nano"),
    (board(f"{ORIN} Super", "nvidia,p3768-0000+p3767-0005-super", "nvidia,tegra234"), "jetson-orin-nano"),
    (
        board("NVIDIA Jetson AGX Thor Developer Kit", "nvidia,p4071-0000+p3834-0008", "nvidia,tegra264"),
        "jetson-thor",
    ),
    # Near misses: the same carrier and chip, another module.
    (board("NVIDIA Jetson Orin NX", "nvidia,p3768-0000+p3767-0000", "nvidia,tegra234"), "generic-jetson"),
    (board("NVIDIA Jetson Orin NX", "nvidia,p3509-0000+p3767-0001-super", "nvidia,tegra234"), "generic-jetson"),
    (board("Jetson-AGX", "nvidia,p2972-0000", "nvidia,tegra194"), "generic-jetson"),
    (board("quill", "nvidia,p2771-0000", "nvidia,tegra186"), "generic-jetson"),
    (board("jetson_tx1", "nvidia,p2371-2180", "nvidia,tegra210"), "generic-jetson"),
    (board("Raspberry Pi 5 Model B Rev 1.0", "raspberrypi,5-model-b", "brcm,bcm2712"), "rpi5"),
    (board("Raspberry Pi Compute Module 5 Rev 1.0", "raspberrypi,5-compute-module", "brcm,bcm2712"), "rpi5"),
    (board("Raspberry Pi 500 Rev 1.0", "raspberrypi,500", "brcm,bcm2712"), "rpi5"),
    (board("Raspberry Pi 4 Model B Rev 1.5", "raspberrypi,4-model-b", "brcm,bcm2711"), "rpi4"),
    (board("Raspberry Pi 400 Rev 1.0", "raspberrypi,400", "brcm,bcm2711"), "rpi4"),
    (board("Raspberry Pi Compute Module 4 Rev 1.1", "raspberrypi,4-compute-module", "brcm,bcm2711"), "rpi4"),
    (board("Raspberry Pi 3 Model B Plus Rev 1.3", "raspberrypi,3-model-b-plus", "brcm,bcm2837"), "linux-desktop"),
    (board("Radxa ROCK 5B", "radxa,rock-5b", "rockchip,rk3588"), "linux-desktop"),
    (pc("LENOVO", "21CBCTO1WW"), "linux-desktop"),
    (pc("QEMU", "Standard PC (Q35 + ICH9, 2009)"), "linux-desktop"),
    (parse({}), "linux-desktop"),
    (phone("oriole", "Google", "Pixel 6"), "pixel6"),
    (phone("raven", "Google", "Pixel 6 Pro"), "generic-android"),
    (phone("husky", "Google", "Pixel 8 Pro"), "pixel8pro"),
    (phone("shiba", "Google", "Pixel 8"), "generic-android"),
    (phone("dm1q", "samsung", "SM-S911B"), "galaxy-s23"),
    (phone("dm3q", "samsung", "SM-S918B"), "generic-android"),
    (phone("corot", "Xiaomi", "23078PND5G"), "xiaomi-13t-pro"),
    (phone("OP595DL1", "OnePlus", "CPH2581"), "oneplus-12"),
    (phone("waffle", "OnePlus", "CPH2573"), "oneplus-12"),
    (phone("emu64xa", "Google", "sdk_gphone64_x86_64"), "generic-android"),
]


SHIPPED, BROKEN = profile.candidates()


def fits(facts: Facts) -> list[matching.Fit]:
    assert not BROKEN
    return matching.fits(facts, SHIPPED)


@pytest.mark.parametrize(("facts", "name"), DEVICES, ids=[str(f.product or f.board) for f, _ in DEVICES])
def test_a_device_has_its_own_profile_or_that_of_its_kind(facts: Facts, name: str) -> None:
    found = fits(facts)
    assert found[0].name == name
    assert matching.ties(found) == []
    assert found[0].generic == (name in ("linux-desktop", "generic-android"))


def test_what_fits_is_told_in_words_and_the_generic_come_after() -> None:
    found = fits(board(ORIN, "nvidia,p3768-0000+p3767-0005", "nvidia,p3767-0005", "nvidia,tegra234"))
    assert [fit.name for fit in found] == ["jetson-orin-nano", "generic-jetson", "linux-desktop"]
    assert found[0].by == "compatible 'nvidia,p3768-0000+p3767-0005'"
    assert found[1].by == "compatible 'nvidia,tegra234'"


def test_a_phone_is_no_linux_pc_though_its_kernel_is_linux() -> None:
    assert [fit.name for fit in fits(phone("oriole"))] == ["pixel6", "generic-android"]
    assert "generic-android" not in [fit.name for fit in fits(pc("LENOVO", "x"))]


def test_every_given_list_must_fit_and_a_profile_that_asks_for_nothing_fits_nothing() -> None:
    facts = board("Raspberry Pi 5 Model B Rev 1.0", "raspberrypi,5-model-b")
    both = Candidate(Match(board=("Raspberry Pi 5*",), compatible=("raspberrypi,5-*",)))
    wrong = Candidate(Match(board=("Raspberry Pi 5*",), compatible=("raspberrypi,4-*",)))
    assert [f.name for f in matching.fits(facts, {"both": both, "wrong": wrong, "none": Candidate(Match())})] == [
        "both"
    ]
    assert matching.fits(facts, {"phone": Candidate(Match(platform="android", board=("Rasp*",)))}) == []


def test_ties_are_told_and_one_that_refines_another_is_none() -> None:
    facts = phone("oriole")
    mine = Candidate(Match(product=("oriole",)), ("pixel6", "generic-android"))
    found = matching.fits(facts, {"pixel6": Candidate(Match(product=("oriole",))), "mine": mine})
    assert [fit.name for fit in found] == ["mine", "pixel6"]
    assert matching.ties(found) == []
    other = matching.fits(facts, {"mine": mine, "theirs": Candidate(Match(product=("oriole",)))})
    assert (other[0].name, matching.ties(other)) == ("mine", ["theirs"])


def test_a_profile_of_a_build_goes_before_that_of_the_phone_and_fits_no_other_build() -> None:
    print16 = "google/oriole/oriole:16/BP2A.250605.031/13602143:user/release-keys"
    newer = Candidate(Match(product=("oriole",), build=("*:16/*",)), ("pixel6",))
    profiles = {"pixel6": Candidate(Match(product=("oriole",))), "pixel6-16": newer}
    found = matching.fits(phone("oriole", ro__build__fingerprint=print16), profiles)
    assert [fit.name for fit in found] == ["pixel6-16", "pixel6"]
    assert matching.ties(found) == []
    assert found[0].by == f"product 'oriole', build '{print16}'"
    for other in ({"ro__build__fingerprint": print16.replace(":16/", ":15/")}, {}):
        assert [fit.name for fit in matching.fits(phone("oriole", **other), profiles)] == ["pixel6"]
    assert [fit.name for fit in matching.fits(phone("raven", ro__build__fingerprint=print16), profiles)] == []


def test_a_longer_pattern_says_more_than_a_shorter_one_and_wildcards_say_nothing() -> None:
    facts = board("x", "nvidia,p3701-0000", "nvidia,tegra234")
    patterns = {"family": "nvidia,tegra*", "module": "nvidia,p3701-*", "any": "*", "klass": "nvidia,p3701-000[0-9]"}
    found = matching.fits(facts, {name: Candidate(Match(compatible=(glob,))) for name, glob in patterns.items()})
    assert [fit.name for fit in found] == ["klass", "module", "family", "any"]
    assert found[-1].generic


def test_getprop_is_parsed_and_what_is_private_stays_out_of_the_conditions() -> None:
    text = (
        b"[gsm.sim.operator.alpha]: [Some Net]\r\n[ro.product.device]: [oriole]\r\n[ro.product.model]: [Pixel 6]\r\n"
        b"[ro.serialno]: [18311FDF60]\r\n[ro.empty]: []\r\nnot a property\r\n[broken]: [two\r\nlines]\r\n"
        b"[ro.build.version.release]: [16]\r\n[ro.build.id]: [BP2A.250605.031]\r\n"
    )
    told = properties(text)
    assert told["ro.product.device"] == "oriole"
    assert "broken" not in told
    assert "ro.empty" not in told
    facts = parse({}, said=told)
    assert (facts.board, facts.os, facts.product, facts.platform) == (
        "Pixel 6", "Android 16 (BP2A.250605.031)", "oriole", "android",
    )  # fmt: skip
    assert facts.identity_from == "ro.serialno"
    assert "18311FDF60" not in str(facts.conditions())
    assert "Some Net" not in str(facts.conditions())


def test_two_phones_of_a_model_are_two_devices() -> None:
    one, two = (phone("oriole", ro__serialno=serial) for serial in ("A1", "B2"))
    assert one.identity != two.identity


@given(st.binary(max_size=300), st.text(max_size=40), st.lists(st.text(max_size=20), max_size=20))
def test_no_text_of_a_device_makes_matching_fail(raw: bytes, model: str, names: list[str]) -> None:
    files: dict[str, Any] = {
        "/proc/device-tree/model": {"status": "ok", "text": model},
        "/proc/device-tree/compatible": {"status": "ok", "text": "\0".join(names)},
    }
    facts = parse({"files": files}, said=properties(raw + b"\n[ro.product.device]: [" + raw))
    assert all(one.isprintable() for one in (*facts.compatible, *facts.properties.values()))
    assert fits(facts)
