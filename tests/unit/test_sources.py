"""From the sources of a device's profile to channels of a job: files, helpers, and the options of readers."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from meltbench import plan
from meltbench.compose import compose
from meltbench.errors import DefinitionError
from meltbench.readings.meters import METERS
from meltbench.scripts import Scripts
from meltbench.spec import Spec
from meltbench.targets import profile
from meltbench.targets.facts import Facts, parse

NVIDIA = {"/proc/driver/nvidia/version": "NVRM version: NVIDIA UNIX x86_64\n"}
RAPL = {"/sys/class/powercap/intel-rapl:0/name": "package-0\n"}
PSYS = {"/sys/class/powercap/intel-rapl:0/name": "psys\n"}


@pytest.fixture
def device(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Writes devices/made.toml, which inherits the local one."""
    monkeypatch.chdir(tmp_path)

    def write(text: str) -> None:
        (tmp_path / "devices").mkdir(exist_ok=True)
        (tmp_path / "devices" / "made.toml").write_text(f'inherits = "local"\n{text}')

    return write


HERE = Scripts.here()


def facts(files: dict[str, str]) -> Facts:
    return parse({"files": {path: {"status": "ok", "text": text} for path, text in files.items()}})


def channels(
    files: dict[str, str], device: str = "local", scripts: Scripts | None = HERE, **more: Any
) -> dict[str, list[str]]:
    """The channel lines of an idle run, by channel."""
    made = plan.make(Spec(workload="idle", device=device))
    made = replace(made, profile=replace(made.profile, **more))
    job, ticket = compose(made, made.cells[0], "r", facts(files), {}, None, "/x", (), scripts)
    assert [source["options"] for source in ticket["sources"]] == [s.options for s in made.profile.source]
    out: dict[str, list[str]] = {}
    for line in job.lines:
        if line.startswith("channel "):
            out.setdefault(line.split()[1], []).append(line)
    return out


def test_a_machine_without_a_gpu_starts_no_helper() -> None:
    found = channels({})
    assert not {"nvml", "pyrapl"} & set(found)
    assert not any(" lines " in line for lines in found.values() for line in lines)
    assert channels(NVIDIA | {"/proc/driver/nvidia/version": ""}).get("nvml") is not None


def test_a_gpu_starts_its_helper_with_the_targets_python_and_the_profiles_period() -> None:
    (line,) = channels(NVIDIA)["nvml"]
    head, _, argv = line.partition(" -- ")
    assert head == "channel nvml lines"
    python, *flags, script, period = argv.split(" ")
    assert (python, flags, period) == (sys.executable, ["-B", "-P"], "97")
    assert Path(script).is_file()
    assert Path(script).name == "nvml.py"


def test_a_gpu_of_another_maker_starts_none() -> None:
    assert "nvml" not in channels({"/sys/class/drm/card0/device/vendor": "0x1002\n"})


def test_pyrapl_starts_where_it_is_installed_and_reads_the_machine_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("pyRAPL", reason="pyRAPL is not installed: pip install 'meltbench[rapl]'")
    assert "lines" in channels(RAPL)["pyrapl"][0]
    assert "pyrapl" not in channels(PSYS)
    made = profile.Roots(sys="/tree/sys")
    tree = {path.replace("/sys/", "/tree/sys/"): text for path, text in RAPL.items()}
    assert "pyrapl" not in channels(tree, roots=made)
    monkeypatch.setitem(sys.modules, "pyRAPL", None)
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    assert "pyrapl" not in channels(RAPL)


def test_a_gpu_of_amd_starts_its_helper_where_the_package_is_installed(
    device: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    device('[[source]]\nname = "amd"\nreader = "amdsmi"\nperiod_ms = 97\n')
    card = {"/sys/class/drm/card0/device/vendor": "0x1002\n"}
    monkeypatch.setattr("importlib.util.find_spec", lambda name: object())
    (line,) = channels(card, "made")["amd"]
    assert line.endswith("/amdsmi.py 97")
    assert "amd" not in channels(NVIDIA, "made")
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    assert "amd" not in channels(card, "made")


def test_a_meter_is_asked_because_the_profile_names_it_and_told_its_address(device: Any) -> None:
    device(
        '[[source]]\nname = "plug"\nreader = "shelly"\nperiod_ms = 499\n'
        '[source.options]\naddress = "192.0.2.7:80"\nchannel = 1\nscope = "wall"\n'
    )
    (line,) = channels({}, "made")["plug"]
    head, _, argv = line.partition(" -- ")
    assert head == "channel plug lines"
    python, *flags, script, period, kind, address = argv.split(" ")
    assert (python, flags) == (sys.executable, ["-B", "-P"])
    assert Path(script).name == "meter.py"
    # Which of its channels counts is the reader's matter: all of them are evidence.
    assert (period, kind, address) == ("499", "shelly", "address=192.0.2.7:80")


def test_every_meter_that_can_be_asked_has_its_word_in_its_helper(device: Any) -> None:
    device("".join(
        f'[[source]]\nname = "m{at}"\nreader = "{one.name}"\nperiod_ms = 997\n'
        for at, one in enumerate(METERS)
    ))  # fmt: skip
    found = channels({}, "made")
    for at, one in enumerate(METERS):
        if one.helper is None:
            assert f"m{at}" not in found
            continue
        (line,) = found[f"m{at}"]
        script, period, word = line.split(" ")[-3:]
        assert (Path(script).stem, period, word) == (one.helper.script, "997", one.name)
        assert f"def {word}(" in Path(script).read_text()


def test_a_helper_needs_a_python_on_the_target() -> None:
    assert "nvml" not in channels(NVIDIA, scripts=None)
    there = Scripts("python3", "/cache/trees/1", frozenset())
    (line,) = channels(NVIDIA, scripts=there)["nvml"]
    assert line.endswith(" -- python3 -B /cache/trees/1/helper_nvml.py 97")
    assert "pyrapl" not in channels(RAPL, scripts=there)  # its package is not in that Python


def test_the_files_of_the_new_sources_are_sampled_at_their_periods() -> None:
    found = channels({})
    (clocks,) = found["clocks"]
    assert clocks.startswith(
        "channel clocks file /sys/devices/system/cpu/cpufreq/policy*/stats/time_in_state 997000000 "
    )
    periods = {line.split(" ")[3].rpartition("/")[2]: int(line.split(" ")[4]) for line in found["hwmon"]}
    assert periods == {
        "power*_input": 53_000_000,
        "power*_average": 53_000_000,
        "energy*_input": 53_000_000,
        "name": 0,
        "power*_label": 0,
        "energy*_label": 0,
        "power*_average_interval": 0,
    }


def test_options_of_a_source_reach_the_profile(device: Any) -> None:
    device('[[source]]\nname = "hwmon"\n[source.options]\nscope = "module"\npower_class = "B"\n')
    loaded, _ = profile.load("made")
    (source,) = [source for source in loaded.source if source.name == "hwmon"]
    assert source.options == {"scope": "module", "power_class": "B"}
    assert source.period_ms == 53


@pytest.mark.parametrize(
    ("source", "options", "words"),
    [
        ("hwmon", 'scope = "modul"', "scope is 'modul'"),
        ("hwmon", 'skope = "module"', "did you mean scope"),
        ("thermal", "celsius_per_count = 0.01", "celsius_per_count"),
        ("cpu", 'user_hz = "fast"', "user_hz"),
        ("engine_cpu", "user_hz = 0", "user_hz"),
        ("rapl", "anything = 1", "anything"),
    ],
)
def test_a_wrong_option_is_found_before_anything_is_run(device: Any, source: str, options: str, words: str) -> None:
    device(f'[[source]]\nname = "{source}"\n[source.options]\n{options}\n')
    with pytest.raises(DefinitionError, match=words) as caught:
        profile.load("made")
    assert "made.toml" in str(caught.value)
    assert repr(source) in str(caught.value)


def test_periods_of_the_local_profile_share_no_multiple_within_a_minute() -> None:
    loaded, _ = profile.load("local")
    periods = sorted({round(source.period_ms) for source in loaded.source})
    for n, one in enumerate(periods):
        assert all(other % one for other in periods[n + 1 :])
        assert 100 % one
        assert one % 10
