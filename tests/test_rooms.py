"""The overview of the rooms is true: the ruff.toml of each bans exactly those that it does not let that room import."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import pytest

import egress_gateway

PACKAGE = Path(egress_gateway.__file__).parent
ROOMS = sorted(folder.name for folder in PACKAGE.iterdir() if (folder / "__init__.py").exists())
_ARROW = re.compile(r"^ {4}(?P<imported>[\w, ]+?) +◀── (?P<by>.+)$", re.MULTILINE)


def may_import() -> dict[str, set[str]]:
    """For each room the rooms that it may import, by the overview."""
    allowed: dict[str, set[str]] = {room: set() for room in ROOMS}
    for line in _ARROW.finditer(egress_gateway.__doc__ or ""):
        for room in _those(line["by"]):
            allowed[room].update(_those(line["imported"]) - {room})
    return allowed


def _those(text: str) -> set[str]:
    """`relay, hooks` and `all but hooks`, without what stands in brackets and what is no room."""
    everybody, _, but = text.partition("all but ")
    words = set(re.findall(r"[\w.]+", re.sub(r"\(.*?\)", "", but or everybody)))
    return set(ROOMS) - words if but else words & set(ROOMS)


def banned(room: str) -> set[str]:
    config = tomllib.loads((PACKAGE / room / "ruff.toml").read_text())
    names = config["lint"]["flake8-tidy-imports"]["banned-api"]
    return {name.removeprefix("egress_gateway.") for name in names if name.startswith("egress_gateway.")} & set(ROOMS)


def test_the_overview_is_read_as_it_is_meant() -> None:
    assert may_import()["gate"] == {"policy", "dns"}
    assert may_import()["policy"] == may_import()["containment"] == set()


@pytest.mark.parametrize("room", ROOMS)
def test_a_room_bans_all_rooms_that_it_may_not_import(room: str) -> None:
    assert banned(room) == set(ROOMS) - {room} - may_import()[room]
