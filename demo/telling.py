"""What the gateway tells of itself: /metrics and the access log."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

from .clients import Address, Reply, ask

_LABEL = re.compile(r'(\w+)="((?:[^"\\]|\\.)*)"')


class Metrics:
    """Remembers the highest value of each series it has seen, as a monitoring system would: the gateway itself
    forgets the series of rules that are gone."""

    def __init__(self, address: Address, entered: Callable[[], AbstractContextManager[object]] = nullcontext) -> None:
        """`entered` is the way into the network of the gateway, where it is another one."""
        self.address = address
        self._entered = entered
        self._seen: dict[str, float] = {}

    def ready(self) -> bool:
        """Whether the gateway is."""
        try:
            return self._get("/readyz").status == 200
        except OSError:
            return False

    def scrape(self) -> dict[str, float]:
        """Every series as it is now, by its text: `name{label="value",…}`."""
        text = self._get("/metrics").body
        lines = [line.rpartition(" ") for line in text.splitlines() if line and not line.startswith("#")]
        now = {series: float(value) for series, _, value in lines}
        for series, value in now.items():
            self._seen[series] = max(value, self._seen.get(series, 0.0))
        return now

    def wait_until_rules(self, count: int, timeout: float = 15.0) -> float | None:
        """Seconds until `count` rules were in force; None when they never were."""
        started = time.monotonic()
        while time.monotonic() < started + timeout:
            if self.scrape().get("egress_rules") == count:
                return time.monotonic() - started
            time.sleep(0.02)
        return None

    def _get(self, path: str) -> Reply:
        with self._entered():
            return ask(self.address, "GET", path, {"Host": "gateway"})

    def seen(self, name: str, **labels: str) -> list[tuple[str, int]]:
        """The series of this name that have these labels and have counted something, with their values."""
        return [
            (series, int(value))
            for series, value in self._seen.items()
            if series.partition("{")[0] == name and value > 0 and labels.items() <= labels_of(series).items()
        ]


def labels_of(series: str) -> dict[str, str]:
    return dict(_LABEL.findall(series))


def wait_for_log(path: Path, timeout: float = 15.0, **fields: Any) -> dict[str, Any] | None:
    """The first line of the access log with these fields, what is null left out; None when it never came."""
    deadline = time.monotonic() + timeout
    while time.monotonic() < deadline:
        lines = path.read_text(encoding="utf-8").split("\n")[:-1] if path.exists() else []
        for entry in map(json.loads, lines):
            if entry.items() >= fields.items():
                return {name: value for name, value in entry.items() if value not in (None, [])}
        time.sleep(0.02)
    return None
