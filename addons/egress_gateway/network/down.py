"""`scripts/gateway-down`: ends the processes that gateway-up started and removes its table; exactly that."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from typing import Any

from . import checks
from .command_line import DownRequest, parse_down
from .nft import Nft
from .processes import Process
from .ruleset import TABLE
from .state import State
from .terminal import Teller

COMMAND = "gateway-down"


def main(arguments: Sequence[str]) -> int:
    tell = Teller(COMMAND)
    return tell.status_of(lambda: _down(parse_down(arguments), tell), interrupted="run it again to remove the rest")


def _down(request: DownRequest, tell: Teller) -> None:
    checks.root(COMMAND)
    nft = Nft.find()
    state = State(request.state)
    with state.locked():
        checks.same_namespace(state)
        # The keeper first, which would put the table back; the table last, so that clients are held until the end.
        done: dict[str, Any] = {}
        for name, file in (("keeper", state.keeper), ("gateway", state.gateway)):
            process = Process.read(file)
            ended = process is not None and process.stop()
            done[name] = process.pid if process and ended else None
            if ended:
                tell.step(f"ended the {name} (pid {done[name]})")
        done["table"] = TABLE if nft.is_there() else None
        if done["table"]:
            nft.remove()
            tell.step(f"removed nftables table {TABLE}")
        state.clear()
    if not any(done.values()):
        tell.step("nothing to do")
    if request.json:
        print(json.dumps(done))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
