"""Is an address one of this machine's own? The gateway must not dial itself, by whatever name."""

from __future__ import annotations

import errno
import socket
from functools import lru_cache
from ipaddress import IPv6Address

from egress_gateway.policy.destination import plain
from egress_gateway.policy.hostname import Address

_NOT_OURS = frozenset(
    {errno.EADDRNOTAVAIL, errno.EINVAL, errno.EAFNOSUPPORT, errno.ENETUNREACH, errno.EHOSTUNREACH, errno.EACCES}
)
"""What the kernel answers about addresses of others (EACCES: broadcast)."""


def is_own(address: Address) -> bool:
    """Whether this machine would deliver packets for `address` to itself.

    The kernel is asked, by binding a socket that sends nothing: interfaces come and go, and a list of them goes stale.
    """
    address = plain(address)
    if address.is_loopback or address.is_unspecified:
        return True
    family = socket.AF_INET6 if isinstance(address, IPv6Address) else socket.AF_INET
    try:
        with socket.socket(family, socket.SOCK_DGRAM) as probe:
            if _nonlocal_bind(family):
                # Binding proves nothing then; a route to oneself has one's own address at both ends.
                probe.connect((str(address), 9))
                return bool(probe.getsockname()[0] == str(address))
            probe.bind((str(address), 0))
    except OSError as error:
        # What could not be asked counts as ours, so that running out of descriptors opens nothing.
        return error.errno not in _NOT_OURS
    return True


@lru_cache
def _nonlocal_bind(family: int) -> bool:
    version = "ipv6" if family == socket.AF_INET6 else "ipv4"
    try:
        with open(f"/proc/sys/net/{version}/ip_nonlocal_bind") as setting:
            return setting.read().strip() == "1"
    except OSError:
        return False
