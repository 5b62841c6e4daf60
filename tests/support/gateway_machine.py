"""A machine on which gateway-up and gateway-down are run, with a directory of rules, and which is as before afterwards.

with GatewayMachine(lab.gateway) as machine:
    machine.up("--inside", "inside").check()
    machine.write_rule("more.yaml", rule("more", "more.example", "9000 tcp"))
"""

import json
import os
import shutil
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from egress_gateway.network import up
from support import warm
from support.gateway import REPOSITORY
from support.lab import rule
from support.networks import Host

RULES = rule("web", "web.example", "80 http", "443 https", "8443 https")
UP, DOWN = REPOSITORY / "scripts" / "gateway-up", REPOSITORY / "scripts" / "gateway-down"


@dataclass(frozen=True, slots=True)
class Done:
    code: int
    out: str
    err: str

    @property
    def lines(self) -> list[str]:
        """What was told, a step each."""
        return self.err.splitlines()

    def check(self) -> Self:
        assert self.code == 0, self.err
        return self


class GatewayMachine:
    """A host on which the packet filter is set up. `rules` and `state` are open to other users."""

    def __init__(self, host: Host) -> None:
        self.host = host
        self.folder = Path(tempfile.mkdtemp(prefix="gateway-up-test-"))
        self.folder.chmod(0o755)
        self.rules, self.state = self.folder / "rules", self.folder / "state"
        self.rules.mkdir()
        (self.rules / "web.yaml").write_text(RULES)

    def up(self, *arguments: str, script: bool = False, before: Sequence[str] = ()) -> Done:
        """gateway-up with these arguments; the script itself takes longer. `before` are words to put before it."""
        what = [str(UP)] if script else [sys.executable, "-P", "-m", "egress_gateway.network.up"]
        return self._run(*before, *what, "--state-dir", str(self.state), "--rules", str(self.rules), *arguments)

    def install(self, *arguments: str) -> None:
        """gateway-up within this very process, which takes no time; nothing runs afterwards."""
        with self.host.entered():
            code = up.main(["--state-dir", str(self.state), "--rules", str(self.rules), "--no-follow", *arguments])
        assert code == 0, "see what was told on standard error"

    def down(self, *arguments: str, script: bool = False, before: Sequence[str] = ()) -> Done:
        what = [str(DOWN)] if script else [sys.executable, "-P", "-m", "egress_gateway.network.down"]
        return self._run(*before, *what, "--state-dir", str(self.state), *arguments)

    def _run(self, *command: str) -> Done:
        with self.host.entered():
            done = warm.run(command, env=os.environ, cwd=self.folder)
        return Done(done.returncode, done.stdout.decode(), done.stderr.decode())

    def nft(self, *arguments: str, text: str | None = None) -> str:
        done = self.host.run("nft", *arguments, input=text)
        return done.stdout

    def ruleset(self) -> str:
        """All tables of the machine, without what counters have."""
        return self.nft("--stateless", "list", "ruleset")

    def ports(self) -> set[int]:
        """Those redirected to the gateway now; none when nothing is installed."""
        done = self.host.run("nft", "-j", "list", "set", "inet", "egress_gateway", "ports", check=False)
        entries = json.loads(done.stdout)["nftables"] if done.returncode == 0 else []
        return {port for entry in entries if "set" in entry for port in entry["set"]["elem"]}

    def write_rule(self, name: str, text: str) -> None:
        """In one step, as an editor would."""
        (self.folder / "new").write_text(text)
        (self.folder / "new").replace(self.rules / name)

    def close(self) -> None:
        try:
            if any(self.state.glob("*.log")):  # something was started
                self.down().check()
            self.host.run("nft", "flush", "ruleset")
        finally:
            shutil.rmtree(self.folder, ignore_errors=True)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
