"""The gateway's network side: scripts/gateway-up and -down, whose keeper outlives the command that started it."""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import Self

from demo.base_stage import ROOT, environment

from .networks import Machine

PROXY_PORT, DNS_PORT = 8080, 5353
_PATIENCE = 20.0
# Ends when the other end of its standard input does, which is when the demo ends, however that is.
_CARETAKER = 'cat >/dev/null; exec scripts/gateway-down --state-dir "$0"'


class PacketFilter:
    """Taken down with the demo, even with one that is killed."""

    def __init__(self, gateway: Machine, folder: Path) -> None:
        self._gateway = gateway
        self._state = ["--state-dir", str(folder / "state")]

    def __enter__(self) -> Self:
        with self._gateway.entered():
            self._caretaker = subprocess.Popen(
                ["sh", "-c", _CARETAKER, self._state[1]],
                stdin=subprocess.PIPE,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                cwd=ROOT,
                env=environment(),
                start_new_session=True,
            )
        return self

    def __exit__(self, *_: object) -> None:
        assert self._caretaker.stdin is not None
        self._caretaker.stdin.close()
        try:
            self._caretaker.wait(_PATIENCE)
        except subprocess.TimeoutExpired:
            self._caretaker.kill()
            self._caretaker.wait()

    def up(self, rules: Path) -> list[str]:
        """The command that puts it up."""
        ports = ["--proxy-port", str(PROXY_PORT), "--dns-port", str(DNS_PORT)]
        command = ["scripts/gateway-up", "--inside", "inside", "--outside", "outside", "--rules", str(rules)]
        return [*command, *ports, *self._state]

    def down(self) -> list[str]:
        """The command that takes it down."""
        return ["scripts/gateway-down", *self._state]

    def table(self) -> str:
        """All that the kernel has of packet filters there, as nft lists it."""
        with self._gateway.entered():
            return subprocess.run(["nft", "list", "ruleset"], capture_output=True, text=True, check=True).stdout
