"""Numbers for people: three or four significant digits with the unit's prefix."""

from __future__ import annotations

import math

_BYTES = ("B", "KiB", "MiB", "GiB", "TiB")
_HERTZ = (("G", 1e9), ("M", 1e6), ("k", 1e3))


def quantity(value: float, unit: str) -> str:
    """A value in its unit as one reads it.

    >>> quantity(0.0123, "s"), quantity(181403648, "B"), quantity(83.21, "tok/s"), quantity(0.004, "1/min")
    ('12.3 ms', '173 MiB', '83.2 tok/s', '0.400 %/min')
    >>> quantity(2_400_000_000, "Hz"), quantity(624_750_000, "Hz")
    ('2.40 GHz', '625 MHz')
    """
    if not math.isfinite(value):
        return "—"
    if unit == "B":
        return _bytes(value)
    if unit == "s" and 0 < abs(value) < 1:
        return f"{_digits(value * 1e3)} ms" if abs(value) >= 1e-3 else f"{_digits(value * 1e6)} µs"
    if unit in ("J", "W") and 0 < abs(value) < 1:
        return f"{_digits(value * 1e3)} m{unit}"
    if unit == "Hz" and abs(value) >= 1e3:
        prefix, scale = next((word, size) for word, size in _HERTZ if abs(value) >= size)
        return f"{_digits(value / scale)} {prefix}Hz"
    if unit == "1/min":
        return f"{_digits(value * 100)} %/min"
    if unit == "1":
        return _digits(value)
    return f"{_digits(value)} {'°C' if unit == 'degC' else unit}".rstrip()


def _bytes(value: float) -> str:
    step = 0
    while abs(value) >= 1024 and step < len(_BYTES) - 1:
        value, step = value / 1024, step + 1
    return f"{_digits(value)} {_BYTES[step]}"


def _digits(value: float) -> str:
    if value == 0:
        return "0"
    places = max(0, 2 - math.floor(math.log10(abs(value))))
    return f"{value:.{min(places, 6)}f}"
