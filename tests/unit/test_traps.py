"""An index of the traps of measuring: each has a test that bears its number, in whatever file it belongs to.

The names are for finding one's way; what a trap is, its tests say.
"""

from __future__ import annotations

import ast
from collections import defaultdict
from pathlib import Path

TESTS = Path(__file__).parents[1]
TRAPS = {
    1: "which way a current is counted, by vendor and by node",
    2: "micro or milli: currents, charges, voltages, tenths of a degree",
    3: "guessing a unit from how large a value is",
    4: "a battery service that answers from its cache",
    5: "a battery service whose updates were stopped",
    6: "an unplug that only the battery service believes in",
    7: "current over USB, which the gauge does not see",
    8: "a status that says charging and is not",
    9: "charge counters that count nothing, too much, or in large steps",
    10: "temperatures of the thermal service's cache",
    11: "thermal zones that are numbered anew, and zones that are off",
    12: "on-device power monitors: two clocks, names by generation, root",
    13: "power monitors with added noise and a cache",
    14: "when a packet was written is not when its sample was taken",
    15: "three clocks across suspend and steps of the wall clock",
    16: "dialects of tegrastats",
    17: "averages since the start, and moving ones, that are called average",
    18: "rails that contain others, boards without an input rail, rails of one name",
    19: "channels of an INA3221 that are shunts and sums",
    20: "voltage and current of one rail that were read apart",
    21: "repeated values: neither new evidence nor to be dropped",
    22: "loads that no sensor of the board sees",
    23: "rails of the Pi 5 that have no current, and a sum that reads too low",
    24: "flags of now and flags since boot",
    25: "RAPL: wraps, resets, errors, twins, and what lies inside what",
    26: "RAPL that may not be read, and its filter",
    27: "NVML: rare samples, trailing means, other tenants",
    28: "AMD counters that stand still, run backwards, or count half",
    29: "Intel GPU counters of 32 bits",
    30: "Apple: intervals as printed, batches, names that are part of others",
    31: "plugs that name one thing in several units",
    32: "day and month in either order",
    33: "meters that lose samples and stamp from their own start",
    34: "phases cut at their edges",
    35: "gauges in step with the tokens",
    36: "trailing means that carry one phase into the next",
    37: "a baseline that drifts, and a net energy below nothing",
    38: "what the sampler itself draws",
    39: "the time of day by a program that must be started first",
    40: "memory that swap hides, and weights that are mapped",
    41: "a gate that ran out of time",
    42: "settings that outlive a crash",
    43: "which tokens are divided by, and answers that end early",
    44: "nothing measured against nothing drawn",
}


def found() -> dict[int, list[str]]:
    """The tests that bear a trap's number."""
    out: dict[int, list[str]] = defaultdict(list)
    for path in sorted(TESTS.rglob("test_*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if not isinstance(node, ast.FunctionDef) or not node.name.startswith("test_trap_"):
                continue
            number = node.name.removeprefix("test_trap_").partition("_")[0]
            assert number.isdigit(), f"{path.name}: {node.name} names no trap"
            out[int(number)].append(f"{path.relative_to(TESTS)}::{node.name}")
    return out


def test_every_trap_has_a_test_that_bears_its_number() -> None:
    tests = found()
    missing = [f"{number} {name}" for number, name in TRAPS.items() if number not in tests]
    assert not missing, "no test_trap_N_ for: " + "; ".join(missing)


def test_no_test_bears_a_number_that_is_no_trap() -> None:
    assert {number: names for number, names in found().items() if number not in TRAPS} == {}
