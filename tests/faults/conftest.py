"""A controller and a room that it knows: what the tests of the whole road begin with."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from road_kit import Road
from rooms_kit import RoomTarget


@pytest.fixture(scope="module")
def first(tmp_path_factory: pytest.TempPathFactory, plain: RoomTarget, probe_binary: Path) -> Road:
    """The controller that found out what the room is."""
    return Road(tmp_path_factory.mktemp("first"), target=plain).added()


@pytest.fixture
def road(tmp_path: Path, plain: RoomTarget, first: Road) -> Iterator[Road]:
    """A new controller that knows the room."""
    yield Road(tmp_path, target=plain).knows(first)
    plain.wire.restore()
