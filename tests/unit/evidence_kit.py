"""Builds streams and series as the probe and the readers would give them."""

from __future__ import annotations

import errno
import json
from dataclasses import replace

import numpy as np

from meltbench.measure.digest import Edges, digest
from meltbench.records import STATUSES, Phase, Readings, Request, Series, Stream

SECOND = 1_000_000_000
ERRORS = {"denied": errno.EACCES, "absent": errno.ENOENT, "again": errno.EAGAIN, "error": errno.EIO}


def stream(path, raw, *, status="ok", period_ns=100_000_000, t0_ns=0, number=0):
    """A file that was read every period; an item of ``raw`` is bytes, or an errno for a read that failed."""
    items = list(raw)
    t = np.array([t0_ns + i * period_ns for i in range(len(items))], dtype=np.int64)
    err = np.array([item if isinstance(item, int) else 0 for item in items], dtype=np.int32)
    texts = [b"" if isinstance(item, int) else item for item in items]
    return Stream(number, "c", "file", path, status, ERRORS.get(status, 0), Readings.of(t, t + 20_000, err, texts))


def said(raw, *, channel="c", delay_ns=1_000_000, period_ns=100_000_000, t0_ns=0):
    """Lines of a helper: bytes, or an object whose stamps are made to lie ``delay_ns`` before its arrival."""
    texts, t = [], np.array([t0_ns + i * period_ns for i in range(len(raw))], dtype=np.int64)
    for at, item in zip(t.tolist(), raw, strict=True):
        if isinstance(item, dict) and "cannot" not in item:
            own = {"t0_ns": at - delay_ns, "t1_ns": at - delay_ns + 1000, "end_ns": at - delay_ns + 3000}
            texts.append(json.dumps(own | item).encode())
        else:
            texts.append(item if isinstance(item, bytes) else json.dumps(item).encode())
    err = np.zeros(len(texts), dtype=np.int32)
    return Stream(0, channel, "lines", "", "ok", 0, Readings.of(t, t + 20_000, err, texts))


def ran(command, raw, *, status="ok", period_ns=1_000_000_000, t0_ns=0):
    """A command of a reader that was polled, or whose lines were read; an item is bytes, or the err of a reading."""
    line = " ".join(command.argv).replace("{pid:engine}", "4120")
    made = stream(line, raw, status=status, period_ns=period_ns, t0_ns=t0_ns)
    return replace(made, kind="poll" if command.poll else "lines")


def ints(values):
    return [v if isinstance(v, bytes) else b"%d\n" % v for v in values]


def series(name, t_s, value, *, kind="counter", unit="J", klass="B", wrap=None, source="s", scope="soc", status=None):
    t = np.round(np.asarray(t_s, dtype=float) * SECOND).astype(np.int64)
    v = np.asarray(value, dtype=float)
    if status is None:
        status = ["ok" if np.isfinite(x) else "error" for x in v]
    status = np.array([STATUSES.index(word) for word in status], dtype=np.uint8)
    return Series(name, unit, kind, source, scope, t, t, v, status, klass=klass, wrap=wrap)


def digests(parts, run=None):
    """Signals as the measures take them."""
    spans = [] if run is None else [(run.t0_ns, run.t1_ns)]
    return [digest(one, Edges.of(spans, run)) for one in parts]


def phase(name, t0_s, t1_s, request=None):
    return Phase(name, round(t0_s * SECOND), round(t1_s * SECOND), request)


def request(index, t0_s, t1_s, *, role="timed", status="ok", ttft_s=None, n_in=100, n_out=50, **more):
    e2e = t1_s - t0_s
    ttft = ttft_s if ttft_s is not None else e2e / 4
    if status != "ok":
        item = more.pop("item", f"item{index}")
        return Request(index, item, role, status, round(t0_s * SECOND), round(t1_s * SECOND), **more)
    rates = {"prefill_tps": n_in / ttft}
    if n_out >= 2:
        rates |= {"tpot_s": (e2e - ttft) / (n_out - 1), "decode_tps": (n_out - 1) / (e2e - ttft)}
    return Request(
        index,
        more.pop("item", f"item{index}"),
        role,
        status,
        round(t0_s * SECOND),
        round(t1_s * SECOND),
        n_in=n_in,
        n_out=n_out,
        ttft_s=ttft,
        e2e_s=e2e,
        **rates | more,
    )
