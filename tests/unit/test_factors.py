from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from meltbench import factors, plan
from meltbench.errors import UnknownName, UserError
from meltbench.spec import Spec
from meltbench.targets import profile as profiles

NVPMODEL = profiles.Factor(
    "a number",
    get=("sh", "-c", "nvpmodel -q | tail -n 1"),
    set=("nvpmodel", "-m", "{value}"),
    undo=("nvpmodel", "-m", "{old}"),
)


def test_a_factor_of_the_device_becomes_a_setting_of_the_run() -> None:
    profile, rest = factors.of_device(profiles.load("jetson-orin-nano")[0], {"nvpmodel": "2", "ctx": "512"})
    (made,) = profile.setting
    assert rest == {"ctx": "512"}
    assert (made.name, made.value, made.wanted) == ("nvpmodel", "2", "2")
    assert made.set[-1] == "2"
    assert made.undo[-1] == "{old}"  # filled in when what was in force is known
    assert not made.optional  # what was asked for and did not take speaks against the run


@pytest.mark.parametrize("value", ["", "2; reboot", "$(id)", "2 3", "`x`", "a" * 65, "2\n"])
def test_a_value_that_is_no_plain_word_is_refused(value: str) -> None:
    with pytest.raises(UserError, match="not a valid setting"):
        NVPMODEL.setting("nvpmodel", value)


@given(st.lists(st.integers(0, 400), min_size=1, max_size=60))
def test_processors_have_one_spelling_for_each_set(cpus: list[int]) -> None:
    words = factors.in_words(sorted(set(cpus)))
    assert factors.processors(words) == sorted(set(cpus))
    assert factors.processors(",".join(map(str, cpus))) == sorted(set(cpus))


@given(st.text(max_size=30))
def test_any_text_is_a_list_of_processors_or_refused_in_a_line(text: str) -> None:
    try:
        found = factors.processors(text)
    except UserError:
        return
    assert found


@pytest.mark.parametrize("text", ["3-1", "0-99999", "", "1,", "-1", "0--1", "1-2-3", "a"])
def test_what_is_no_list_of_processors_is_refused(text: str) -> None:
    with pytest.raises(UserError):
        factors.processors(text)


def test_the_fast_cores_are_those_of_the_profile() -> None:
    profile, _ = profiles.load("galaxy-s23")
    assert factors.of_process(profile, {"cpus": "big", "memory_mib": "512"})[0] == {"cpus": "3-7", "memory_mib": 512}
    with pytest.raises(UserError, match="fast cores"):
        factors.of_process(profiles.load("local")[0], {"cpus": "big"})


def test_none_is_the_same_as_not_given() -> None:
    profile, _ = profiles.load("local")
    assert factors.of_process(profile, {"cpus": "none", "memory_mib": "none", "x": "1"}) == ({}, {"x": "1"})


@pytest.mark.parametrize("text", ["0", "-5", "2GiB", "1e3", ""])
def test_a_memory_limit_that_is_no_count_is_refused(text: str) -> None:
    with pytest.raises(UserError, match="memory_mib"):
        factors.of_process(profiles.load("local")[0], {"memory_mib": text})


def test_what_was_not_in_force_speaks_against_the_run() -> None:
    knobs = {"cpus": "0-3", "memory_mib": 512}
    good = {"cpus": "0-3", "memory_by": "cgroup", "memory_bytes": 512 << 20}
    assert factors.against(knobs, [good]) == []
    assert factors.against(knobs, [good | {"cpus": "0-1"}]) == ["cpus = 0-3: 0-1 were in force"]
    assert factors.against(knobs, [good | {"memory_by": None}]) == ["memory_mib = 512: no limit was in force"]
    less = good | {"memory_by": "rlimit", "memory_bytes": 300 << 20}
    assert factors.against(knobs, [less]) == ["memory_mib = 512: 300 MiB was in force"]
    (told,) = factors.against(knobs, [good | {"memory_bytes": "x"}])
    assert told == "memory_mib = 512: nobody knows what was in force"
    assert factors.in_force([good]) == good
    assert factors.in_force([{"proc": "engine", "cpus": None}]) is None


def test_factors_are_in_the_plan_and_its_hash() -> None:
    plain, slow = (plan.make(Spec(knobs=knobs)) for knobs in ((), (("governor", "powersave"),)))
    bound = plan.make(Spec(knobs=(("cpus", "0"),)))
    assert len({plain.hash, slow.hash, bound.hash}) == 3
    assert [one.value for one in slow.profile.setting] == ["powersave"]
    assert bound.knobs["cpus"] == "0"
    with pytest.raises(UnknownName, match="did you mean governor"):
        plan.make(Spec(knobs=(("govenor", "powersave"),)))
