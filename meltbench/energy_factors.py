"""What a kilowatt-hour costs and emits: as the user states it, or as data/factors.toml has it with source and year."""

from __future__ import annotations

import math
import re
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Literal

from meltbench.catalog import data_files
from meltbench.errors import UnknownName, UserError
from meltbench.tables import read_table, read_toml

if TYPE_CHECKING:
    from pathlib import Path

FACTORS = "data/factors.toml"
Kind = Literal["price", "carbon"]
_PRICE = re.compile(r"\s*(?P<value>\d{1,9}(?:\.\d{1,9})?)\s*(?P<unit>[A-Za-z]{3}|[€$£¥])?\s*/\s*kWh\s*\Z")
_GRID = re.compile(r"\s*(?P<value>\d{1,9}(?:\.\d{1,9})?)\s*(?P<unit>g|kg)\s*/\s*kWh\s*\Z")
_MAX_G = 3000.0  # lignite in an old plant emits some 1200 g/kWh: more than this was another unit
_STATED = "stated on the command line"


@dataclass(frozen=True)
class Factor:
    """``value`` of ``unit`` by kWh; ``year`` None where it was stated for now. It is taken as exact."""

    kind: Kind
    name: str
    value: float
    unit: str
    source: str
    year: int | None = None

    @property
    def of_number(self) -> tuple[str, str]:
        """How a number is called that it makes of an energy, and its unit."""
        return ("cost", self.unit) if self.kind == "price" else ("g_co2e", "g")

    def as_json(self) -> dict[str, Any]:
        """As documents have it, with its unit in full."""
        return asdict(self) | {"unit": f"{self.unit or 'money'}/kWh" if self.kind == "price" else "gCO2e/kWh"}


@dataclass(frozen=True)
class _Grid:
    name: str
    g_co2e_per_kwh: float
    year: int
    source: str
    title: str = ""

    def __post_init__(self) -> None:
        if not 0 <= self.g_co2e_per_kwh <= _MAX_G:
            raise ValueError(f"g_co2e_per_kwh = {self.g_co2e_per_kwh:g}: give 0 to {_MAX_G:g} grams")
        if not self.source:
            raise ValueError(f"{self.name}: a factor needs a source")


@dataclass(frozen=True)
class _File:
    grid: tuple[_Grid, ...] = ()


def price(text: str) -> Factor:
    """From ``0.30/kWh`` or ``0.30 EUR/kWh``. Raises UserError."""
    found = _PRICE.match(text)
    if found is None:
        raise UserError(f"--price {text[:40]!r} is no price of a kilowatt-hour", hint="write 0.30/kWh or 0.30EUR/kWh")
    unit = found["unit"] or ""
    return Factor("price", "price of electricity", float(found["value"]), unit.upper(), _STATED)


def grid(text: str) -> Factor:
    """From ``400g/kWh``, grams of CO2 equivalents. Raises UserError."""
    found = _GRID.match(text)
    grams = math.inf if found is None else float(found["value"]) * (1000 if found["unit"] == "kg" else 1)
    if found is None or grams > _MAX_G:
        why = "no carbon of a kilowatt-hour" if found is None else f"more than {_MAX_G:g} g, which no plant emits"
        raise UserError(f"--grid {text[:40]!r} is {why}", hint="write 400g/kWh, grams of CO2 equivalents")
    return Factor("carbon", "carbon intensity of the grid", grams, "g", _STATED)


def grid_of_region(name: str) -> Factor:
    """The mean of a region's grid, with its source. Raises UnknownName, DefinitionError for a broken file."""
    known = regions()
    if name not in known:
        raise UnknownName("region of a grid", name, known)
    one = known[name]
    told = f"carbon intensity of the grid, {one.title or one.name}"
    return Factor("carbon", told, one.g_co2e_per_kwh, "g", one.source, one.year)


def regions() -> dict[str, _Grid]:
    """The grids of every factors.toml on the search path, by name; of one name the nearest file's counts."""
    found: dict[str, _Grid] = {}
    for path, _ in data_files(FACTORS):
        for one in _of_file(path):
            found.setdefault(one.name, one)
    return dict(sorted(found.items()))


def _of_file(path: Path) -> tuple[_Grid, ...]:
    return read_table(_File, read_toml(path), path).grid
