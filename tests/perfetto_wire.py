"""Perfetto's traces, written field by field in the wire format."""

from __future__ import annotations

import struct


def varint(value):
    value &= 2**64 - 1
    out = b""
    while True:
        value, low = value >> 7, value & 0x7F
        out += bytes([low | (0x80 if value else 0)])
        if not value:
            return out


def number(field, value):
    return varint(field << 3) + varint(value)


def part(field, data):
    data = data.encode() if isinstance(data, str) else data
    return varint(field << 3 | 2) + varint(len(data)) + data


def packet(*contents, t_ns=None, clock=None):
    head = (number(8, t_ns) if t_ns is not None else b"") + (number(58, clock) if clock is not None else b"")
    return part(1, head + b"".join(contents))


def rails(*contents):
    return part(40, b"".join(contents))


def named(index, name, hz=125):
    return part(1, number(1, index) + part(2, name) + part(3, "cpu") + number(4, hz))


def energy_of(index, uws, ms=None):
    return part(2, number(1, index) + (number(2, ms) if ms is not None else b"") + number(3, uws))


def battery(**told):
    out = b""
    for key, value in told.items():
        if key == "percent":
            out += varint(2 << 3 | 5) + struct.pack("<f", value)
        elif key == "name":
            out += part(5, value)
        else:
            out += number({"charge": 1, "current": 3, "average": 4, "uwh": 6, "voltage": 7}[key], value)
    return part(38, out)
