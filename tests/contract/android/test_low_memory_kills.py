"""The low-memory killer's lines in Android's log. The texts are made: in the format of AOSP's lmkd.cpp and of its event
log's tags, and in the words of logs that people published (crDroid, Meta's Horizon OS, a Pixel's tag `lmkd`)."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from meltbench.readings.lowmemory import killed, naming, words

HERE = Path(__file__).parent
ANDROID12 = (HERE / "lowmemory_android12.txt").read_bytes()


@pytest.mark.parametrize(
    ("name", "pid", "said"),
    [
        (
            "android12",
            6870,
            (
                "lowmemorykiller: Kill '/data/local/tmp/meltbench/cache/llama-server' (6870), uid 2000, "
                "oom_score_adj -950 to free 2740708kB rss, 90208kB swap; reason: device is not responding"
            ),
        ),
        ("android12", 512, None),  # the killer's own pid, on every line
        ("android12", 6190, None),  # named in an error, and killed by nobody
        ("android12", 687, None),
        (
            "reclaim",
            21804,
            (
                "lmkd: Reclaim 'com.example.video' (21804), uid 10382, oom_score_adj 0, state 2 to free 1080844kB rss, "
                "1537496kB swap; reason: device is low on swap (4781268kB < 5620364kB) and thrashing (304%)"
            ),
        ),
        ("reclaim", 594, None),
        ("android9", 11950, "lowmemorykiller: Killing 'com.example.game' (11950), adj 906"),
        ("events_alone", 4402, "killinfo: [4402,2000,0,0,1911204,3,80440,212332]"),
        ("events_alone", 2000, None),
    ],
)
def test_the_kill_of_a_process_in_the_killers_own_words(name: str, pid: int, said: str | None) -> None:
    log = (HERE / f"lowmemory_{name}.txt").read_bytes()
    assert killed(log, pid) == said
    assert killed(log.replace(b"\n", b"\r\n"), pid) == said
    # What is kept of the log says the same.
    assert killed(naming(log, pid), pid) == said


def test_what_is_kept_names_the_process_and_is_bounded() -> None:
    kept = naming(ANDROID12, 6870)
    assert len(kept.splitlines()) == 2
    assert all(b"6870" in line for line in kept.splitlines())
    flood = ANDROID12 * 10_000
    assert len(naming(flood, 6870)) < 20_000
    assert naming(flood, 1) == b""
    assert killed(naming(flood, 6870), 6870) == killed(ANDROID12, 6870)


def test_a_line_of_another_program_that_quotes_a_kill_is_none() -> None:
    quoted = b"11-02 09:14:07.461  9001  9001 I bugreporter: seen lowmemorykiller: killed 'x' (6870)\n"
    assert killed(quoted, 6870) is None
    prose = b"11-02 09:14:07.461  9001  9001 I notlmkd: Kill 'x' (6870), uid 1\n"
    assert killed(prose, 6870) is None
    assert killed(b"", 6870) is None


def test_control_characters_of_a_name_are_none_on_a_terminal() -> None:
    line = b"11-02 09:14:07.461 512 512 I lmkd : Kill '\x1b[31mx\x07' (77), uid 1\n"
    said = killed(line, 77)
    assert said is not None
    assert said.isprintable()
    long = b"1 I lmkd : Kill '" + b"a" * 200 + b"' (77), reason: " + b"b" * 5000
    assert len(killed(long, 77) or "") <= 400


@given(st.binary(max_size=400), st.integers(0, 2**31), st.sampled_from([b"", ANDROID12]))
def test_any_bytes_give_words_or_none(raw: bytes, pid: int, after: bytes) -> None:
    said = killed(raw + b"\n" + after, pid)
    assert said is None or str(pid) in said


def test_the_command_asks_for_the_killers_tags_since_the_engine_was_started() -> None:
    said = " ".join(words(1_700_000_000.5))
    assert said == (
        "logcat -d -b main -b system -b events -v threadtime -t 1700000000.500 -s lmkd:V lowmemorykiller:V killinfo:V"
    )
