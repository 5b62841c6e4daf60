"""What every stage has, whichever story is played on it: the commentary, the rules, and the gateway with its tales."""

from __future__ import annotations

import os
import subprocess
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from .console import Console
from .processes import Program, ProgramFailed, run_to_end
from .telling import Metrics

ROOT = Path(__file__).resolve().parent.parent
HERE = Path(__file__).resolve().parent


class Differs(Exception):
    """The world is not as the story has it."""


@dataclass(slots=True, kw_only=True)
class BaseStage:
    console: Console
    rules: Path
    """The gateway's rules directory, empty at first."""
    rule_file: str
    gateway: Program
    metrics: Metrics
    access_log: Path
    refusals: Counter[str] = field(default_factory=Counter)
    """What clients were told, by reason."""

    def check(self, holds: bool, claim: str, found: object) -> None:
        """Says that `claim` holds. Raises Differs, having said what was `found`, where it does not."""
        if not holds:
            self.console.differs(claim, f"found: {found}")
            raise Differs(claim)
        self.console.holds(claim)

    def egressctl(self, *arguments: str) -> str:
        """Runs egressctl on the rules directory and returns what it says. Raises Differs when it fails."""
        command = ["scripts/egressctl", "--rules", str(self.rules), *arguments]
        done = self.run(command)
        if done.returncode != 0:
            raise Differs(f"egressctl {arguments[0]} succeeds (exit status {done.returncode})")
        return done.stdout

    def run(
        self, command: Sequence[str], shown: Callable[[str], str] = lambda text: text
    ) -> subprocess.CompletedProcess[str]:
        """Shows and runs a command of this project, and shows what it says, or what `shown` makes of it."""
        self.console.command(" ".join(command))
        done = run_to_end(command, environment(), ROOT)
        self.console.output(shown(done.stdout + done.stderr))
        return done


def gateway_command(
    folder: Path, rules: Path, metrics: Metrics, access_log: Path, settings: Mapping[str, object], *modes: str
) -> list[str]:
    # One worker: of several each reads a new rule for itself, and the story goes on as soon as one has.
    command = ["scripts/gateway", "--rules", str(rules), "--workers", "1", *modes]
    command += ["--metrics-listen", f"{metrics.address[0]}:{metrics.address[1]}"]
    command += ["--access-log", str(access_log)]
    for name, value in {"confdir": folder / "mitmproxy", **settings}.items():
        command += ["--set", f"{name}={value}"]
    return command


def wait_until_ready(gateway: Program, metrics: Metrics, timeout: float = 30.0) -> None:
    deadline = time.monotonic() + timeout
    while not metrics.ready():
        if gateway.ended or time.monotonic() > deadline:
            raise ProgramFailed(f"the gateway did not start:\n{gateway.last_words()}")
        time.sleep(0.05)


def as_in_project(path: Path) -> str:
    """`path` as a command in the project's folder names it."""
    return str(path.relative_to(ROOT)) if path.is_relative_to(ROOT) else str(path)


def environment(**also: str) -> dict[str, str]:
    """This process's environment without the proxies and rules that somebody has set for other purposes."""
    kept = {
        name: value
        for name, value in os.environ.items()
        if not name.lower().endswith("_proxy") and name not in ("EGRESS_RULES", "SSL_CERT_FILE", "SSL_CERT_DIR")
    }
    return kept | also
