"""Options `block_global` and `block_private`: who is not listened to, by its address alone.

What mitmproxy's own `Block` says of the connections that it accepts, for the sockets that are ours.
"""

from __future__ import annotations

from functools import lru_cache
from ipaddress import ip_address

from egress_gateway.policy.destination import plain


@lru_cache(maxsize=4096)
def blocked_by(client: str, block_global: bool, block_private: bool) -> str:
    """The option that keeps a client of this address out; empty where none does."""
    address = plain(ip_address(client.partition("%")[0]))
    if address.is_loopback:
        return ""
    if block_private and address.is_private:
        return "block_private"
    if block_global and address.is_global:
        return "block_global"
    return ""
