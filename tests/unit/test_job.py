from __future__ import annotations

from urllib.parse import unquote_to_bytes

from hypothesis import given
from hypothesis import strategies as st

from meltbench.probe.job import Job, Until, literal, milliseconds, word


@given(st.text())
def test_a_word_holds_no_space_and_comes_back(text: str) -> None:
    written = word(text)
    assert written.isascii()
    assert not set(written) & set(" \n\t%") - {"%"}
    raw = text.encode("utf-8", "surrogateescape") if not any(0xD800 <= ord(c) < 0xDC80 for c in text) else None
    if raw is not None:
        assert (b"" if written == "%" else unquote_to_bytes(written)) == raw


@given(st.text(max_size=30))
def test_a_job_is_as_many_lines_as_were_added(text: str) -> None:
    job = Job("r")
    job.spawn("engine", ["prog", text], {"KEY": text})
    job.file("mem", text, 5)
    assert job.text().count("\n") == 4


def test_undecodable_arguments_survive() -> None:
    assert word(b"a\xff".decode("utf-8", "surrogateescape")) == "a%FF"


def test_the_lines_of_every_kind() -> None:
    job = Job("20260101T000000Z-abcdef")
    job.limit("log_bytes", 9)
    job.file("rapl", "/sys/class/powercap/intel-rapl:*/energy_uj", 47_000_000)
    job.poll("gauge", 1_000_000, 0.5, ["vcgencmd", "pmic_read_adc"])
    job.stream("tegra", ["tegrastats", "--interval", "100"])
    job.idle("idle_before", 3)
    job.port("engine")
    job.pages("/m", drop=True)
    job.spawn("engine", ["p", "--port", "{port:engine}"], {"A": "b c"})
    job.ready("engine", "engine", "/health", 2)
    job.http("requests", "engine", 1, 2, 10, ["req/0"])
    job.http("requests", "engine", 4, 2, 10, ["req/1"], Until(1.5, (("/sys/z*/temp", "above", 84_999.5),)))
    job.http("requests", "engine", 1, 2, 10, ["req/2"], Until(1), pause_s=0.25)
    job.execute("engine", 2, ["sh", "-c", ""])
    job.set("/sys/x*", "1")
    job.undo(["nvpmodel", "-m", "{2}"])
    job.attempt("set.mode", 3, ["nvpmodel", "-m", "0 1"])
    job.mark("here")
    job.stop("engine", 0.5)
    assert job.text().splitlines() == [
        "meltjob 1",
        "run 20260101T000000Z-abcdef",
        "limit log_bytes 9",
        "channel rapl file /sys/class/powercap/intel-rapl:*/energy_uj 47000000 0",
        "channel gauge poll 1000000 500 -- vcgencmd pmic_read_adc",
        "channel tegra lines -- tegrastats --interval 100",
        "step idle idle_before 3000",
        "step port engine",
        "step pages /m drop",
        "step spawn engine env=A=b%20c -- p --port {port:engine}",
        "step ready engine engine /health 2000",
        "step http requests engine 1 2000 10 req/0",
        "step http requests engine 4 2000 10 until=1500 /sys/z*/temp above 84999.500000 -- req/1",
        "step http requests engine 1 2000 10 pause=250 until=1000 -- req/2",
        "step exec engine 2000 -- sh -c %",
        "step set /sys/x* 1",
        "step undo -- nvpmodel -m %7B2%7D",
        "step try set.mode 3000 -- nvpmodel -m 0%201",
        "step mark here",
        "step stop engine 500",
    ]


def test_milliseconds_never_round_a_wait_to_nothing() -> None:
    assert (milliseconds(0), milliseconds(0.0001), milliseconds(1.5)) == (0, 1, 1500)


@given(st.text(max_size=20))
def test_a_users_text_is_never_a_placeholder_or_a_glob(text: str) -> None:
    assert not set(literal(text)) & set("{}*?[] \n")
    job = Job("r")
    job.execute("engine", 1, ["p", "{port:engine}", text])
    job.spawn("engine", ["p", "{port:engine}", f"x{text}"])
    assert "%7Bport:engine%7D" in job.lines[0]
    assert " {port:engine} " in job.lines[1]
