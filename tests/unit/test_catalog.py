import hashlib
from pathlib import Path

import pytest

from meltbench import catalog
from meltbench.errors import DefinitionError, UnknownName


@pytest.fixture
def roots(tmp_path, monkeypatch):
    """A working folder and a user configuration of their own; what is built in stays."""
    cwd, user = tmp_path / "cwd", tmp_path / "config" / "meltbench"
    cwd.mkdir()
    monkeypatch.chdir(cwd)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    return cwd, user


def put(root, relative, text):
    path = root / relative
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


def test_the_built_in_definitions_load(roots):
    for kind in ("devices", "workloads", "runners"):
        found = catalog.definitions(kind)
        assert found
        assert {d.origin for d in found.values()} == {"built-in"}
        assert list(found) == sorted(catalog.find(kind))
    assert (catalog.builtin_root() / "data" / "models.toml").is_file()


def test_the_first_on_the_path_wins(roots):
    cwd, user = roots
    put(user, "devices/pad.toml", 'title = "user"')
    assert catalog.load("devices", "pad").origin == "user"
    put(cwd, "devices/pad.toml", 'title = "cwd"')
    found = catalog.load("devices", "pad")
    assert (found.origin, found.data, found.path) == ("cwd", {"title": "cwd"}, cwd / "devices" / "pad.toml")


def test_a_checkout_as_working_folder_counts_once(roots, monkeypatch):
    monkeypatch.chdir(catalog.builtin_root())
    assert [origin for _, origin in catalog.search_path()] == ["user", "built-in"]
    assert {d.origin for d in catalog.find("devices").values()} == {"built-in"}


def test_a_runner_is_a_folder(roots):
    cwd, _ = roots
    put(cwd, "runners/mine/runner.toml", 'title = "x"\nserver = "serve.py"\n')
    before = catalog.load("runners", "mine")
    put(cwd, "runners/mine/serve.py", "pass\n")
    after = catalog.load("runners", "mine")
    assert [f.name for f in after.files] == ["serve.py"]
    assert before.sha256 != after.sha256


def test_unknown_names_come_with_the_nearest(roots):
    with pytest.raises(UnknownName, match="unknown device 'locl'; did you mean local"):
        catalog.load("devices", "locl")


@pytest.mark.parametrize(
    ("name", "nearest"),
    [
        ("nope", []),
        ("foo", []),
        ("pixle6", ["pixel6", "pixel"]),
        ("jetson", ["jetson-xavier", "jetson-orin-nano"]),  # part of longer names, however much longer
        ("xavier", ["jetson-xavier"]),
        ("on", []),
        ("", []),
    ],
)
def test_no_name_is_suggested_that_is_far(name: str, nearest: list[str]) -> None:
    known = ["jetson-orin-nano", "jetson-xavier", "macbook", "pixel", "pixel6"]
    found = UnknownName("device", name, known)
    assert found.nearest == nearest
    hint = f"did you mean {', '.join(nearest)}?" if nearest else f"known: {', '.join(known)}"
    assert found.hint == hint


def test_one_broken_file_does_not_hide_the_others(roots):
    cwd, _ = roots
    put(cwd, "devices/broken.toml", "a = = 1")
    assert "broken" in catalog.find("devices")
    assert catalog.load("devices", "local").origin == "built-in"
    with pytest.raises(DefinitionError, match=r"broken.toml, line 1"):
        catalog.definitions("devices")


def test_the_hash_is_of_the_content_and_of_the_named_items(roots):
    cwd, _ = roots
    path = put(cwd, "workloads/w.toml", 'title = "w"')
    assert catalog.load("workloads", "w").sha256 == hashlib.sha256(path.read_bytes()).hexdigest()
    put(cwd, "workloads/w.toml", 'title = "w"\nitems = "w.jsonl"')
    with pytest.raises(DefinitionError, match=r"names 'w.jsonl', which is not there"):
        catalog.load("workloads", "w")
    items = put(cwd, "workloads/w.jsonl", '{"id": 1}\n')
    before = catalog.load("workloads", "w")
    assert before.files == (items,)
    items.write_text('{"id": 2}\n')
    assert catalog.load("workloads", "w").sha256 != before.sha256


def test_items_outside_the_folder_are_refused(roots):
    cwd, _ = roots
    put(cwd, "other.jsonl", "{}\n")
    put(cwd, "workloads/w.toml", 'items = "../other.jsonl"')
    with pytest.raises(DefinitionError, match="outside its folder"):
        catalog.load("workloads", "w")


BASE = """
title = "base"
[power]
total = "rail"
period_ms = 97
[[source]]
name = "rail"
unit = "uW"
scale = 1
[[source]]
name = "heat"
unit = "mC"
"""


def test_a_device_lays_its_tables_over_the_inherited(roots):
    cwd, _ = roots
    put(cwd, "devices/base.toml", BASE)
    put(
        cwd,
        "devices/child.toml",
        'inherits = "base"\n[power]\nperiod_ms = 47\n[[source]]\nname = "rail"\nscale = 2\n[[source]]\nname = "fan"\n',
    )
    child = catalog.load("devices", "child")
    assert child.data == {
        "title": "base",
        "power": {"total": "rail", "period_ms": 47},
        "source": [{"name": "rail", "unit": "uW", "scale": 2}, {"name": "heat", "unit": "mC"}, {"name": "fan"}],
    }
    assert child.lineage == (cwd / "devices" / "base.toml",)
    put(cwd, "devices/base.toml", BASE + 'more = "x"')
    assert catalog.load("devices", "child").sha256 != child.sha256


def test_a_name_may_inherit_itself_from_further_down(roots):
    cwd, _ = roots
    put(cwd, "devices/local.toml", 'inherits = "local"\n[extra]\nx = 1\n')
    mine = catalog.load("devices", "local")
    assert mine.origin == "cwd"
    assert mine.data["extra"] == {"x": 1}
    assert mine.lineage == (catalog.builtin_root() / "devices" / "local.toml",)


def test_circles_and_strangers_are_refused(roots):
    cwd, _ = roots
    put(cwd, "devices/a.toml", 'inherits = "b"')
    put(cwd, "devices/b.toml", 'inherits = "a"')
    put(cwd, "devices/c.toml", 'inherits = "c"')
    put(cwd, "devices/d.toml", 'inherits = "locall"')
    put(cwd, "devices/e.toml", "inherits = 3")
    for name, words in {
        "a": r"inherits from itself: .*a.toml -> .*b.toml -> .*a.toml",
        "c": "inherits from itself; no other 'c'",
        "d": "unknown device 'locall'; did you mean local",
        "e": "expected the name of a device",
    }.items():
        with pytest.raises(DefinitionError, match=words):
            catalog.load("devices", name)


def test_no_folder_at_all_is_no_definition(roots):
    assert not Path("devices").exists()
    assert "local" in catalog.find("devices")
