"""Who is not listened to: those of whom mitmproxy's own `Block` says so, for the sockets that are ours."""

from __future__ import annotations

import pytest
from mitmproxy.addons.block import Block
from mitmproxy.connection import Client
from mitmproxy.test import taddons

from egress_gateway.hooks.blocked import blocked_by

CLIENTS = {
    "loopback": ("127.0.0.1", ""),
    "loopback, IPv6": ("::1", ""),
    "private": ("10.1.2.3", "block_private"),
    "private, as IPv6": ("::ffff:10.1.2.3", "block_private"),
    "unique local": ("fd00::1", "block_private"),
    "link-local, with its zone": ("fe80::1%eth0", "block_private"),
    "global": ("8.8.8.8", "block_global"),
    "global, as IPv6": ("::ffff:8.8.8.8", "block_global"),
    "global, IPv6": ("2606:4700::1", "block_global"),
    "shared by carriers, which is neither": ("100.64.0.1", ""),
}


def killed_by_mitmproxy(address: str, block_global: bool, block_private: bool) -> bool:
    block = Block()
    client = Client(peername=(address, 1), sockname=("127.0.0.1", 2))
    with taddons.context(block) as context:
        context.configure(block, block_global=block_global, block_private=block_private)
        block.client_connected(client)
    return client.error is not None


@pytest.mark.parametrize(("address", "option"), CLIENTS.values(), ids=CLIENTS)
@pytest.mark.parametrize("block_global", [False, True], ids=["global may", "global may not"])
@pytest.mark.parametrize("block_private", [False, True], ids=["private may", "private may not"])
def test_the_option_that_keeps_a_client_out(address: str, option: str, block_global: bool, block_private: bool) -> None:
    on = {"block_global": block_global, "block_private": block_private}
    assert blocked_by(address, block_global, block_private) == (option if on.get(option) else "")
    assert bool(blocked_by(address, block_global, block_private)) is killed_by_mitmproxy(
        address, block_global, block_private
    )
