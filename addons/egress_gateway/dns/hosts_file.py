"""What /etc/hosts says: names of this host's choosing, which no server is asked about. See hosts(5).

- One address a line, then its names; `#` starts a comment; a line that cannot be understood is skipped.
- Names are compared in lower case and without a trailing dot. All lines of a name count, in their order.
- A name that stands here is answered from here alone, for both families: a file that pins a name to an
  IPv4 address must not be widened by somebody's AAAA record.
"""

from collections.abc import Mapping
from ipaddress import ip_address

from egress_gateway.dns.answer import Address, interleave


def parse_hosts(text: str) -> Mapping[str, tuple[Address, ...]]:
    """Addresses of each name, in the order to dial them. Never raises."""
    found: dict[str, list[Address]] = {}
    for line in text.splitlines():
        words = line.partition("#")[0].split()
        if not words:
            continue
        try:
            address = ip_address(words[0])
        except ValueError:
            continue
        for name in words[1:]:
            found.setdefault(name.lower().removesuffix("."), []).append(address)
    return {name: interleave(addresses) for name, addresses in found.items()}
