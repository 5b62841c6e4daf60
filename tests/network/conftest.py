"""The packet filter in real namespaces: the router of the lab is the machine that it is set up on.

| fixture | what it is | lives for |
|---|---|---|
| `machine` | the router with a directory of rules; runs gateway-up and gateway-down there, and cleans up | a test |
| `checked` | runs gateway-up within this very process, for what fails before anything is started | a test |
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest

from egress_gateway.network import up
from support.attempts import as_user
from support.gateway_machine import Done, GatewayMachine
from support.networks import TwoNetworks


@pytest.fixture
def machine(networks: TwoNetworks) -> Iterator[GatewayMachine]:
    with GatewayMachine(networks.gateway) as made:
        yield made


@pytest.fixture
def checked(machine: GatewayMachine, capsys: pytest.CaptureFixture[str]) -> Callable[..., Done]:
    """gateway-up, which must not get as far as to start something."""

    def run(*arguments: str, uid: int = 0) -> Done:
        rules = () if "--rules" in arguments else ("--rules", str(machine.rules))
        capsys.readouterr()
        with machine.host.entered(), as_user(uid):
            code = up.main([*rules, "--state-dir", str(machine.state), *arguments])
        said = capsys.readouterr()
        return Done(code, said.out, said.err)

    return run
