"""The table in the kernel, by the program `nft`. Every change is one transaction: all of it happens, or nothing."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from .ruleset import FAMILY, NAME, PORTS, TABLE, remove, swap_ports
from .terminal import Failure

_SECONDS = 30.0
_INSTALL = "Debian, Ubuntu: apt-get install nftables; Fedora: dnf install nftables"


class NftError(Failure):
    """The kernel, or nft, did not take it; nothing was changed."""


@dataclass(frozen=True, slots=True)
class Nft:
    program: str

    @classmethod
    def find(cls) -> Nft:
        """Raises `Failure` when there is none."""
        # Debian keeps it where only root's PATH looks.
        path = f"{os.environ.get('PATH', '')}:/usr/local/sbin:/usr/sbin:/sbin"
        program = shutil.which("nft", path=path)
        if program is None:
            raise Failure(f"nft is not installed ({_INSTALL})")
        return cls(program)

    def check(self, text: str) -> None:
        """Whether the kernel would take `text`, which it tells without doing it. Raises `NftError`."""
        self._run("--check", "-f", "-", text=text)

    def load(self, text: str) -> None:
        """Raises `NftError`."""
        self._run("-f", "-", text=text)

    def remove(self) -> None:
        """The table is gone afterwards, whether it was there or not. Raises `NftError`."""
        self.load(remove())

    def is_there(self) -> bool:
        """Whether the table is loaded. Raises `NftError`."""
        tables = (entry["table"] for entry in self._list("tables") if "table" in entry)
        return any(table["family"] == FAMILY and table["name"] == NAME for table in tables)

    def table(self) -> str | None:
        """The table as a text to load again, without what its counters have; None when it is not there."""
        return self._run("--stateless", "list", "table", *TABLE.split()) if self.is_there() else None

    def ports(self) -> frozenset[int] | None:
        """The ports redirected to the gateway now; None when the table is not there."""
        try:
            listed = self._list("set", *TABLE.split(), PORTS)
        except NftError:
            if self.is_there():
                raise
            return None
        sets = (entry["set"] for entry in listed if "set" in entry)
        return frozenset(port for found in sets for port in _numbers(found.get("elem", ())))

    def rules_by_chain(self) -> Counter[str]:
        """How many rules each chain of the table has now; a chain without any is not in it. Raises `NftError`."""
        return Counter(entry["rule"]["chain"] for entry in self._list("table", *TABLE.split()) if "rule" in entry)

    def swap(self, ports: Iterable[int]) -> None:
        """Raises `NftError`."""
        self.load(swap_ports(ports))

    def _list(self, *what: str) -> list[dict[str, Any]]:
        text = self._run("--json", "list", *what)
        try:
            listed: list[dict[str, Any]] = json.loads(text)["nftables"]
        except (ValueError, KeyError, TypeError):
            raise NftError(f"{self.program} does not speak JSON (install nftables with JSON support)") from None
        return listed

    def _run(self, *arguments: str, text: str = "") -> str:
        try:
            done = subprocess.run(  # noqa: S603  # our own arguments, no shell
                [self.program, *arguments],
                input=text,
                capture_output=True,
                text=True,
                timeout=_SECONDS,
                check=False,
                env=os.environ | {"LC_ALL": "C"},
            )
        except (OSError, subprocess.TimeoutExpired) as error:
            raise NftError(f"{self.program} could not be run: {error}") from None
        if done.returncode:
            raise NftError(_first_error(done.stderr, text))
        return done.stdout


def _numbers(elements: Iterable[int | dict[str, Any]]) -> Iterable[int]:
    """Ports and, where nft has joined neighbours, ranges of them."""
    for element in elements:
        if isinstance(element, int):
            yield element
        else:
            first, last = element["range"]
            yield from range(first, last + 1)


def _first_error(said: str, text: str) -> str:
    """nft's first complaint as one line, with the line of `text` that it is about."""
    lines = said.strip().splitlines() or ["it said nothing"]
    first = next((line for line in lines if "Error:" in line), lines[0])
    place, _, what = first.rpartition("Error: ")
    number = place.split(":")[1] if place.count(":") > 1 else ""
    about = text.splitlines()[int(number) - 1 : int(number)] if number.isdigit() else []
    return f"nft: {what or first}{f' in: {about[0].strip()}' if about else ''}"
