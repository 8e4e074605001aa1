import pytest

from meltbench.errors import DefinitionError, UnknownName, UserError
from meltbench.models import catalogue, resolve


@pytest.fixture(autouse=True)
def cwd(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    monkeypatch.setenv("MELTBENCH_CACHE", str(tmp_path / "cache"))
    (tmp_path / "data").mkdir()
    return tmp_path


def write(cwd, text):
    (cwd / "data" / "models.toml").write_text(text)


def test_the_shipped_catalogue(cwd):
    for name in catalogue():
        model = resolve(name)
        assert model.license
        assert model.quantisation
    default = resolve("smollm2-135m-q4")
    assert default.name == "smollm2-135m-q4_1"
    assert default.stands_for
    assert resolve(default.name).stands_for is None
    assert resolve("qwen-1.5b-q4").sha256 is None


def test_the_nearest_names_are_told(cwd):
    with pytest.raises(UnknownName, match="did you mean smollm2-135m-q4"):
        resolve("smolm2-135m-q4")
    with pytest.raises(UnknownName):
        resolve("")


@pytest.mark.parametrize(
    "text", ["/no/such.gguf", "no.gguf", "./folder", "~/x", "o/r:../x.gguf", "o/r:x.bin", "o/r:/x.gguf"]
)
def test_paths_and_hub_names_that_cannot_be(cwd, text):
    with pytest.raises(UserError):
        resolve(text)


def test_a_file_that_is_not_gguf(cwd):
    (cwd / "page.gguf").write_text("<html>")
    with pytest.raises(UserError, match="web page"):
        resolve("page.gguf")


def test_own_entries_are_added_and_win(cwd):
    write(
        cwd,
        '[[model]]\nname = "mine"\nsource = "hub"\nrepo = "o/r"\nfile = "m.gguf"\n'
        '[[model]]\nname = "smollm2-135m-q4"\nalias_of = "mine"\n',
    )
    assert resolve("smollm2-135m-q4").name == "mine"
    assert "qwen-1.5b-q4" in catalogue()


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ('name = "a"', "expected either alias_of or source"),
        ('name = "a"\nsource = "index"\npackage = "p"\nmember = "m"', "needs package = 'name==version'"),
        ('name = "a"\nsource = "index"\npackage = "p==1"\nmember = "../m"', "member = 'path/in/wheel'"),
        ('name = "a"\nsource = "index"\npackage = "--x==1"\nmember = "m"', "needs package"),
        ('name = "a"\nsource = "hub"\nrepo = "o"\nfile = "m.gguf"', "needs repo = 'owner/repo'"),
        ('name = "a"\nsource = "hub"\nrepo = "o/r"\nfile = "m.gguf"\nsha256 = "b1"', "64 hexadecimal digits"),
        ('name = "a"\nsource = "web"', "expected one of 'index', 'hub'"),
        ('name = "a"\nalias_of = "b"\n[[model]]\nname = "a"\nalias_of = "b"', "two models are called 'a'"),
        ('name = "a"\nalias_of = "a"', "is an alias of 'a', which is no model"),
        ('name = "a"\nalias_of = "b"\n[[model]]\nname = "b"\nalias_of = "a"', "an alias names an entry with a source"),
    ],
)
def test_malformed_entries_are_refused(cwd, text, words):
    write(cwd, f"[[model]]\n{text}\n")
    with pytest.raises(DefinitionError, match=words) as caught:
        resolve("a")
    assert "models.toml" in str(caught.value)


def test_a_pin_that_is_no_hash_is_refused(cwd):
    pins = cwd / "config" / "meltbench" / "pins.toml"
    pins.parent.mkdir(parents=True)
    pins.write_text('[pins]\n"hub:o/r@main:m.gguf" = "abc"\n')
    with pytest.raises(DefinitionError, match="expected 64 hexadecimal digits"):
        resolve("o/r:m.gguf")
