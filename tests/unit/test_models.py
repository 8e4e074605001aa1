import pytest
from ggufmaker import LLAMA, gguf

from meltbench.errors import DefinitionError, UnknownName, UserError
from meltbench.models import adopt, artifacts, cached, catalogue, resolve
from meltbench.models.header import LOCAL
from meltbench.models.names import source_of


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
    entries = catalogue()
    for name, entry in entries.items():
        model = resolve(name, LOCAL)
        assert model.license
        assert model.quantisation
        assert entry.alias_of or (entry.title and entry.parameters_billion and entry.context_tokens)
        assert entry.alias_of or entry.chat_template
    default = resolve("smollm2-135m-q4")
    assert default.name == "smollm2-135m-q4_1"
    assert default.stands_for == "smollm2-135m-q4 stands for smollm2-135m-q4_1, 5.74 bits per weight"
    assert resolve(default.name).stands_for is None
    assert resolve("qwen-1.5b-q4").name == "qwen2.5-1.5b-instruct-q4_k_m"


def test_no_hash_and_no_revision_is_shipped_that_nobody_has_verified(cwd):
    shipped = [(name, artifact) for name, (_, artifact) in artifacts(catalogue()).items()]
    assert [name for name, artifact in shipped if artifact.sha256] == ["smollm2-135m-q4_1"]
    assert [name for name, artifact in shipped if artifact.size_bytes or artifact.bits_per_weight] == [
        "smollm2-135m-q4_1"
    ]
    assert {artifact.revision for _, artifact in shipped} == {"main"}


def test_every_shipped_artifact_has_a_name_and_a_source_of_its_own(cwd):
    entries = catalogue()
    forms = [one for entry in entries.values() for one in entry.artifact]
    named = artifacts(entries)
    assert len(named) == len(forms)
    assert not set(named) & set(entries)
    assert len({str(source_of(artifact)) for _, artifact in named.values()}) == len(forms)
    for name, (entry, artifact) in named.items():
        assert resolve(name, (artifact.format,)).entry == entry.name
        assert artifact.format in ("gguf", "mlc", "onnx-genai")


def test_the_seeds_and_todays_small_models_are_there(cwd):
    entries = set(catalogue())
    melt = {"tinyllama-1.1b-chat", "stablelm-zephyr-3b", "mistral-7b-instruct-v0.1", "gemma-2b-it", "gemma-7b-it"}
    melt |= {"llama-2-7b-chat", "llama-2-13b-chat"}
    edge = {f"deepseek-r1-distill-{one}" for one in ("qwen-1.5b", "llama-8b", "qwen-14b")}
    ipw = {f"qwen3-{one}" for one in ("4b", "8b", "14b", "32b")} | {"gpt-oss-20b", "mixtral-8x7b-instruct-v0.1"}
    small = {"smollm2-135m", "smollm2-360m", "smollm2-1.7b", "smollm3-3b", "gemma-2-2b-it", "gemma-3-270m-it"}
    small |= {f"qwen2.5-{one}-instruct" for one in ("0.5b", "1.5b", "3b", "7b")} | {"qwen3-0.6b", "qwen3-1.7b"}
    small |= {"llama-3.2-1b-instruct", "llama-3.2-3b-instruct", "gemma-3-1b-it", "gemma-3-4b-it"}
    small |= {"phi-3.5-mini-instruct", "phi-4-mini-instruct", "mistral-7b-instruct-v0.3"}
    assert melt | edge | ipw | small <= entries


TWO = """
[[model]]
name = "tiny"
license = "MIT"
[[model.artifact]]
repo = "o/r"
file = "m.gguf"
quantisation = "Q4_K_M"
[[model.artifact]]
format = "mlc"
repo = "o/mlc"
quantisation = "q4f16_1"
[[model]]
name = "t"
alias_of = "tiny"
"""


@pytest.mark.parametrize(
    ("asked", "formats", "name", "source"),
    [
        ("tiny", ("gguf",), "tiny-q4_k_m", "hub:o/r@main:m.gguf"),
        ("t", ("mlc",), "tiny-q4f16_1", "hub:o/mlc@main:/"),
        ("tiny", ("mlc", "gguf"), "tiny-q4_k_m", "hub:o/r@main:m.gguf"),
        ("tiny-q4f16_1", ("mlc", "gguf"), "tiny-q4f16_1", "hub:o/mlc@main:/"),
    ],
)
def test_an_engine_gets_the_artifact_in_its_format(cwd, asked, formats, name, source):
    write(cwd, TWO)
    found = resolve(asked, formats)
    assert (found.name, str(found.source), found.entry, found.license) == (name, source, "tiny", "MIT")
    assert found.format in formats
    assert bool(found.stands_for) == (asked != name)


def test_without_an_artifact_in_a_format_the_next_step_is_said(cwd):
    write(cwd, TWO)
    with pytest.raises(UserError) as none:
        resolve("t", ("onnx-genai",))
    built = "build one: meltbench models build-onnx t ./t-onnx, then --model ./t-onnx"
    assert str(none.value) == f"tiny has no ONNX artifact (it has GGUF, MLC); {built}"
    with pytest.raises(UserError, match=r"build-onnx tiny \./tiny-onnx"):  # of what was not meant, for it is no GGUF
        resolve("tiny-q4f16_1", ("onnx-genai",))
    with pytest.raises(UserError, match=r"a folder with mlc-chat-config.json; of the same model: tiny-q4f16_1"):
        resolve("tiny-q4_k_m", ("mlc",))
    with pytest.raises(UserError, match=r"has no plain ONNX artifact .*; this engine takes an \.onnx file"):
        resolve("tiny", ("onnx",))


def folder_of_mlc(path):
    path.mkdir(parents=True)
    (path / "mlc-chat-config.json").write_text("{}")
    return path


def test_what_an_engine_could_serve_is_first_sought_here(cwd):
    write(cwd, TWO)
    both = ("mlc", "served")
    assert str(resolve("t", both).source) == "hub:o/mlc@main:/"
    assert resolve("tiny-q4f16_1", both).format == "mlc"
    folder_of_mlc(cwd / "models" / "smol-MLC")
    for text in ("./models/smol-MLC", "models/smol-MLC", str(cwd / "models" / "smol-MLC")):
        assert resolve(text, both).format == "mlc"
    for text in ("HF://o/smol-MLC", "o/smol-MLC", "smol-MLC", "llama3.2:1b", "models"):
        assert (resolve(text, both).format, resolve(text, both).name) == ("served", text)
    (cwd / "tinyllama").write_text("")
    assert resolve("tinyllama", both).format == "served"  # what lies here by that name is no model
    folder_of_mlc(cwd / "phi")
    assert resolve("phi", both).format == "mlc"
    for text in ("./models/nope-MLC", "t", "tiny-q4_k_m"):  # a server may know anything by any name
        assert resolve(text, ("served",)).name == text


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("./models/smoll-MLC", "no model file at models/smoll-MLC; did you mean models/smol-MLC"),
        ("models/smoll-MLC", "did you mean models/smol-MLC"),
        ("./model/smol-MLC", "there is no folder model"),
        ("~nobody-at-all/smol-MLC", "there is no folder ~nobody-at-all"),
        ("/x", "no model file at /x; check the path"),
        ("./models", "a folder is a model with"),
        ("nope.gguf", "no model file at nope.gguf"),
        ("mine.gguf", "is a GGUF file; this engine takes a folder with mlc-chat-config.json or the name"),
        ("tiny-q4_k_m", "is a GGUF file, .*; of the same model: tiny-q4f16_1"),
        ("bare", r"bare has no MLC artifact \(it has GGUF\); this engine takes a folder"),
        ("./" + "x" * 100_000, "no model file at"),
    ],
)
def test_what_is_not_here_is_no_name_that_a_server_knows(cwd, text, words):
    write(cwd, f'{TWO}[[model]]\nname = "bare"\n[[model.artifact]]\nrepo = "o/r"\nfile = "m.gguf"\n')
    folder_of_mlc(cwd / "models" / "smol-MLC")
    (cwd / "mine.gguf").write_bytes(gguf())
    with pytest.raises(UserError, match=words):
        resolve(text, ("mlc", "served"))


@pytest.mark.parametrize(
    ("text", "formats", "taker", "words"),
    [
        (
            "./bad.jsonl",
            ("onnx",),
            "this engine",
            r"^\./bad\.jsonl is not an \.onnx file; this engine takes nothing else$",
        ),
        ("./bad.onnx", ("gguf",), "models quantize", r"is an \.onnx file; models quantize takes a GGUF file$"),
        (
            "./m",
            ("onnx-genai",),
            "--format onnx-genai",
            "mlc-chat-config.json; --format onnx-genai takes a folder with g",
        ),
        (
            "tiny-q4f16_1",
            ("gguf",),
            "models quantize",
            "mlc-chat-config.json, models quantize takes a GGUF file; of the",
        ),
        ("tiny", ("onnx",), "--format onnx", r"\(it has GGUF, MLC\); --format onnx takes an \.onnx file$"),
        ("http://foo/bar.gguf", LOCAL, "x", r"^models are not fetched from an address \(http://\); .* owner/repo:file"),
        ("https://me:secret@foo/bar", ("gguf",), "x", r"^models are not fetched from an address \(https://\);"),
        ("http://foo/bar.gguf", ("mlc", "served"), "x", "^models are not fetched from an address"),
    ],
)
def test_what_is_not_taken_is_said_of_who_does_not_take_it(cwd, text, formats, taker, words):
    write(cwd, TWO)
    (cwd / "bad.jsonl").write_text("{}\n")
    (cwd / "bad.onnx").write_text("")
    folder_of_mlc(cwd / "m")
    with pytest.raises(UserError, match=words):
        resolve(text, formats, taker)


def test_what_was_brought_by_hand_is_told_by_its_own_path(cwd):
    (cwd / "bad.jsonl").write_text("{}\n")
    with pytest.raises(UserError) as caught:
        adopt(resolve("o/r:m.gguf"), cwd / "bad.jsonl")
    path = cwd / "bad.jsonl"
    why = f"{path} is not a GGUF file: it looks like a JSON answer; give what was downloaded, whole"
    assert str(caught.value) == f"o/r:m.gguf: {why}"
    (cwd / "m").mkdir()
    (cwd / "m" / "mlc-chat-config.json").symlink_to(cwd / "nowhere")
    with pytest.raises(UserError, match=r"^o/r: .*/m/mlc-chat-config\.json is no file"):
        adopt(resolve("o/r", ("mlc",)), cwd / "m")
    (cwd / "m.gguf").write_bytes(gguf())
    assert adopt(resolve("o/r:m.gguf"), cwd / "m.gguf").read_bytes() == gguf()


def test_the_nearest_model_of_a_folder_is_told(cwd):
    (cwd / "smol.gguf").write_bytes(gguf())
    (cwd / "smol.txt").write_text("")
    with pytest.raises(UserError, match=r"did you mean smol\.gguf\?"):
        resolve("./smoll.gguf")
    with pytest.raises(UserError, match="there is no folder ~nobody-at-all"):
        resolve("~nobody-at-all/smol.gguf")


def test_tables_of_one_name_are_one_model(cwd):
    mine = '[[model.artifact]]\nname = "my-q8"\npath = "/m.gguf"\nquantisation = "Q8_0"\n'
    other = '[[model.artifact]]\nrepo = "me/r"\nfile = "other.gguf"\nquantisation = "Q4_1"\n'
    write(
        cwd,
        f'[[model]]\nname = "smollm2-135m"\ntitle = "Mine"\n{mine}[[model]]\nname = "smollm2-135m"\n{other}',
    )
    entry = catalogue()["smollm2-135m"]
    names = [entry.name_of(one) for one in entry.artifact]
    assert (names[0], names[-1], names.count("smollm2-135m-q4_1")) == ("smollm2-135m-q4_1", "my-q8", 1)
    assert (entry.title, entry.license) == ("Mine", "Apache-2.0")
    assert str(resolve("smollm2-135m-q4").source) == "hub:me/r@main:other.gguf"  # the one of its name is replaced


def test_a_path_in_the_catalogue_is_read_when_it_is_used(cwd):
    path = cwd / "tiny.gguf"
    write(cwd, f'[[model]]\nname = "mine"\nlicense = "MIT"\n[[model.artifact]]\npath = "{path}"\n')
    assert "mine" in catalogue()
    with pytest.raises(UserError, match=r"mine: no model file at .*; make or fetch it again, or change data/models"):
        resolve("mine")
    path.write_bytes(gguf(LLAMA | {"meltbench.descends_from": ("str", "big (F16, sha256 00)")}))
    found = resolve("mine")
    assert (found.name, found.title, found.quantisation, found.license) == ("mine", "Tiny", "Q4_1", "MIT")
    assert (found.sha256_from, found.size_bytes, cached(found)) == ("file", path.stat().st_size, path)
    assert found.descends_from == "big (F16, sha256 00)"
    path.unlink()
    path.mkdir()
    with pytest.raises(UserError, match="is not a GGUF file"):
        resolve("mine")


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
        '[[model]]\nname = "mine"\n[[model.artifact]]\nrepo = "o/r"\nfile = "m.gguf"\n'
        '[[model]]\nname = "smollm2-135m-q4"\nalias_of = "mine"\n',
    )
    assert resolve("smollm2-135m-q4").name == "mine"
    assert "qwen-1.5b-q4" in catalogue()


ART = "[[model.artifact]]\n"


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ('name = "a"', "expected either alias_of or artifacts"),
        (f'name = "a"\nalias_of = "b"\n{ART}repo = "o/r"\nfile = "m.gguf"', "expected either alias_of or artifacts"),
        (f'name = "a b"\n{ART}repo = "o/r"\nfile = "m.gguf"', "name: expected letters"),
        (f'name = "a"\n{ART}name = "/a"\nrepo = "o/r"\nfile = "m.gguf"', "name: expected letters"),
        (f'name = "a"\n{ART}quantisation = "Q8_0"', "expected one of package .with member., repo"),
        (f'name = "a"\n{ART}path = "/m"\nrepo = "o/r"\nfile = "m.gguf"', "expected one of package"),
        (f'name = "a"\n{ART}package = "p"\nmember = "m"', "expected package = 'name==version'"),
        (f'name = "a"\n{ART}package = "p==1"\nmember = "../m"', "member = 'path/in/wheel'"),
        (f'name = "a"\n{ART}package = "--x==1"\nmember = "m"', "expected package"),
        (f'name = "a"\n{ART}repo = "o"\nfile = "m.gguf"', "expected repo = 'owner/repo'"),
        (f'name = "a"\n{ART}repo = "o/r"\nfile = "m.bin"', "with file = 'name.gguf'"),
        (f'name = "a"\n{ART}format = "mlc"\nrepo = "o/r"\nfile = "m.gguf"', "of a folder without file"),
        (f'name = "a"\n{ART}format = "mlc"\nrepo = "o/r"\nfolder = "../x"', "of a folder without file"),
        (f'name = "a"\n{ART}path = "m.gguf"', "expected one that starts with / or ~/"),
        (f'name = "a"\n{ART}repo = "o/r"\nfile = "m.gguf"\nsha256 = "b1"', "64 hexadecimal digits"),
        (f'name = "a"\n{ART}path = "/m.gguf"\nsha256 = "{"0" * 64}"', "of what is fetched"),
        (f'name = "a"\n{ART}format = "served"\npath = "/m"', "a model that a server knows"),
        (f'name = "a"\n{ART}format = "web"\npath = "/m"', "expected one of 'gguf', 'onnx-genai', 'mlc', 'onnx'"),
        (f'name = "a"\n{ART}path = "/m"\n{ART}path = "/n"', "two artifacts are called 'a'"),
        (f'name = "a"\nalias_of = "b"\n[[model]]\nname = "a"\n{ART}path = "/m"', "two entries are called 'a'"),
        ('name = "a"\nalias_of = "a"', "is an alias of 'a', which is no model"),
        ('name = "a"\nalias_of = "b"\n[[model]]\nname = "b"\nalias_of = "a"', "an alias names a model or one"),
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
