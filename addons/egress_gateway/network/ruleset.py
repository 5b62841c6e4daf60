"""What is loaded into the kernel: a layout and a set of ports in, the text of one nftables table out. Pure.

The rules of this file:

- One table, replaced as a whole in one transaction: loading it twice is loading it once, and there is no moment
  without it. Nothing of it lies in anybody else's table.
- What comes from inside is judged as it comes in (prerouting), right after the redirect. So nothing depends on
  whether this host forwards, and no other table's `accept` lets it pass.
- Each kind of refusal is a rule of its own, and no two of them match the same packet: a rule that is lost opens what
  it says, which `gateway-check` sees.
- Refused means told (a reset, an ICMP error), so that clients fail at once and browsers leave QUIC for TCP. What is
  told quotes what was sent, and goes to the address that it claims to come from: so before anything is told, that
  must be an address inside.
- A name is matched, not a number (`iifname`): an interface that is made anew is held as the old one was.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from .layout import ICMP, Layout

FAMILY, NAME = "inet", "egress_gateway"
TABLE = f"{FAMILY} {NAME}"
PORTS = "ports"

REFUSED_TCP = "refused: TCP"
REFUSED_QUIC = "refused: QUIC"
REFUSED_UDP = "refused: UDP"
REFUSED_ICMP = "refused: ICMP"
REFUSED_OTHER = "refused: other protocols"
DROPPED = "dropped: what the kernel cannot read or track"
FORGED = "dropped: a source that is not inside"
UNTOLD = "dropped: complaints about packets, to others than clients"
REFUSALS = (REFUSED_TCP, REFUSED_QUIC, REFUSED_UDP, REFUSED_ICMP, REFUSED_OTHER, DROPPED)
"""The comments of the rules that hold traffic back, which are how a reader finds them."""

_ND = "nd-router-solicit, nd-neighbor-solicit, nd-neighbor-advert"
_MLD = "mld-listener-report, mld-listener-done, mld2-listener-report"
_ERRORS = "destination-unreachable, time-exceeded, parameter-problem"
_HERE = "fib daddr type local"


def render(layout: Layout, ports: Iterable[int]) -> str:
    """A file for `nft -f`: the table anew, whether it was there or not."""
    blocks = [_set(PORTS, ports)]
    if layout.served:
        blocks.append(_set("served", layout.served))
    blocks += (_chain(name, rules) for name, rules in _chains(layout))
    return f"{remove()}table {TABLE} {{\n{'\n'.join(blocks)}}}\n"


def remove() -> str:
    """A file for `nft -f` after which the table is not there, whether it was or not."""
    return f"add table {TABLE}\ndelete table {TABLE}\n"


def swap_ports(ports: Iterable[int]) -> str:
    """A file for `nft -f` that puts these ports in the place of those of before."""
    return f"flush set {TABLE} {PORTS}\nadd element {TABLE} {PORTS} {_elements(ports)}\n"


def rules_by_chain(layout: Layout) -> dict[str, int]:
    """How many rules each chain of the table has."""
    return {name: sum(not rule.startswith("type ") for rule in rules) for name, rules in _chains(layout)}


def _chains(layout: Layout) -> Iterator[tuple[str, list[str]]]:
    inside = f"iifname {_interfaces(layout.inside)}"
    if layout.inside:
        # Before fragments are put together, since the kernel complains of those that it waits for in vain.
        forged = _rule(f"{inside} fib saddr . iif oif missing", "drop", FORGED)
        yield "sources", [_hook("filter", "prerouting", -450), forged]
        # Hop-by-hop options of IPv6 are read before any hook, and answered whoever seems to have sent them.
        elsewhere = f"oifname != {_interfaces(('lo', *layout.inside))}"
        complaint = _rule(f"{elsewhere} icmpv6 type parameter-problem", "drop", UNTOLD)
        yield "complaints", [_hook("filter", "output", 0), complaint]
        # Before other tables' dstnat chains, since the first that translates a connection is the only one.
        yield "nat_inside", [_hook("nat", "prerouting", -110), f"{inside} jump redirect_inside"]
        yield "redirect_inside", [*_kept(layout, "return"), "jump to_gateway"]
    if layout.sidecar:
        here = f'oifname != "lo" meta skuid != {layout.exempt_uid}'
        yield "nat_host", [_hook("nat", "output", -110), f"{here} jump to_gateway"]
        yield "nat_loopback", [_hook("nat", "postrouting", 90), *_from_loopback(layout)]
    yield "to_gateway", list(_redirects(layout))
    if layout.inside:
        yield "filter_inside", [_hook("filter", "prerouting", -90), f"{inside} jump from_inside"]
        yield "from_inside", [*_passes_from_inside(layout), "goto refuse"]
    if layout.sidecar:
        # Packets without a socket, such as neighbour discovery, are the kernel's own; this condition never holds
        # for them.
        here = f"meta skuid != {layout.exempt_uid}"
        yield "filter_host", [_hook("filter", "output", 0), f"{here} jump from_host"]
        yield "from_host", [*_passes_from_host(layout), "goto refuse"]
    yield "refuse", list(_refusals())
    yield "input", [_hook("filter", "input", 0), *_from_elsewhere(layout)]


def _redirects(layout: Layout) -> Iterator[str]:
    yield _rule("udp dport 53", f"redirect to :{layout.dns_port}", "to the gateway: DNS over UDP")
    yield _rule("tcp dport 53", f"redirect to :{layout.dns_port}", "to the gateway: DNS over TCP")
    yield _rule(f"tcp dport @{PORTS}", f"redirect to :{layout.proxy_port}", "to the gateway: ports of the rules")


def _from_loopback(layout: Layout) -> Iterator[str]:
    """What this host sends to its gateway comes from loopback, whichever of its addresses it would have left by.

    So its programs are one client to the gateway, which knows what it has told whom; and an answer finds back.
    """
    ports = f"{{ {layout.proxy_port}, {layout.dns_port} }}"
    for family, address in (("ip", "127.0.0.1"), ("ip6", "::1")):
        match = f'oifname "lo" ct status dnat {family} daddr {address} meta l4proto {{ tcp, udp }} th dport {ports}'
        yield _rule(match, f"snat {family} to {address}", "to the gateway: from this host")


def _passes_from_inside(layout: Layout) -> Iterator[str]:
    # The ports too, since another table's translation would set the same status.
    yield _rule(f"ct status dnat {_HERE} tcp dport {layout.proxy_port}", "accept", "passes: redirected to the proxy")
    # A port that is not translated, because it is 53 already, has no such status.
    translated = "" if layout.dns_port == 53 else "ct status dnat "
    for transport, name in (("udp", "UDP"), ("tcp", "TCP")):
        match = f"{translated}{_HERE} {transport} dport {layout.dns_port}"
        yield _rule(match, "accept", f"passes: redirected DNS over {name}")
    yield from _kept(layout, "accept")
    # Of the gateway itself only: answers to a connection from outside would be a way out.
    yield _rule(f"ct direction reply ct state established {_HERE}", "accept", "passes: answers to the gateway itself")
    yield _rule(f"ct state related {_HERE} icmp type {{ {_ERRORS} }}", "accept", "passes: errors of known connections")
    errors = f"packet-too-big, {_ERRORS}"
    yield _rule(f"ct state related {_HERE} icmpv6 type {{ {errors} }}", "accept", "passes: errors of known connections")
    # Neither router advertisements nor redirects: they would tell this host where to send what it lets out. To this
    # host and this link only, or they would be forwarded with whatever they carry.
    yield _rule(f"{_HERE} icmpv6 type {{ {_ND} }}", "accept", "passes: neighbour discovery")
    yield _rule(f"ip6 daddr ff02::/16 icmpv6 type {{ {_ND}, {_MLD} }}", "accept", "passes: neighbour discovery")
    yield _rule("udp sport 68 udp dport 67 fib daddr type { local, broadcast }", "accept", "passes: DHCP")
    yield _rule("ip6 daddr ff02::1:2 udp sport 546 udp dport 547", "accept", "passes: DHCPv6")


def _passes_from_host(layout: Layout) -> Iterator[str]:
    yield _rule(_HERE, "accept", "passes: this host itself, and what was redirected")
    yield _rule("ct direction reply ct state established", "accept", "passes: answers to those who connected")
    if layout.served:
        yield _rule(f"{_NOT_FIRST} tcp sport @served", "accept", "passes: answers to those who were connected before")
    # To the link only: a server elsewhere could be anybody. A client that is not heard by its own asks the link next.
    yield _rule("udp sport 68 udp dport 67 ip daddr 255.255.255.255", "accept", "passes: DHCP")
    yield _rule("ip6 daddr ff02::1:2 udp sport 546 udp dport 547", "accept", "passes: DHCPv6")


_NOT_FIRST = "tcp flags & (fin | syn | rst | ack) != syn"


def _refusals() -> Iterator[str]:
    yield _rule("meta l4proto tcp", "reject with tcp reset", REFUSED_TCP)
    yield _rule("udp dport 443", "reject with icmpx type port-unreachable", REFUSED_QUIC)
    yield _rule("udp dport != 443", "reject with icmpx type port-unreachable", REFUSED_UDP)
    yield _rule("meta l4proto { icmp, ipv6-icmp }", "reject with icmpx type admin-prohibited", REFUSED_ICMP)
    others = "meta l4proto != { tcp, udp, icmp, ipv6-icmp }"
    yield _rule(others, "reject with icmpx type admin-prohibited", REFUSED_OTHER)
    # A chain of IPv6 headers that is cut short has no protocol to match, and a router would forward it.
    yield _rule("ct state { invalid, untracked }", "drop", DROPPED)


def _from_elsewhere(layout: Layout) -> Iterator[str]:
    """Nobody but clients uses the proxy and the resolver."""
    elsewhere = f"iifname != {_interfaces(('lo', *layout.inside))}"
    # To this host's own addresses, since 5353 is the port of multicast DNS too.
    tcp = f"{elsewhere} {_HERE} tcp dport {{ {layout.proxy_port}, {layout.dns_port} }}"
    yield _rule(tcp, "reject with tcp reset", "refused: strangers over TCP")
    udp = f"{elsewhere} {_HERE} udp dport {layout.dns_port}"
    yield _rule(udp, "reject with icmpx type port-unreachable", "refused: strangers over UDP")
    if layout.sidecar:
        # A connection that was open before the kernel began to track them would look as if others had opened it.
        served = " tcp dport != @served" if layout.served else ""
        match = f'iifname != "lo" ct state new {_NOT_FIRST}{served}'
        yield _rule(match, "reject with tcp reset", "refused: connections from before")


def _kept(layout: Layout, verdict: str) -> Iterator[str]:
    for kept in layout.kept:
        if kept.protocol == ICMP:
            if verdict == "accept":
                yield _rule(f"{_HERE} icmp type echo-request", verdict, "kept: icmp")
                yield _rule(f"{_HERE} icmpv6 type echo-request", verdict, "kept: icmp")
        else:
            yield _rule(f"{_HERE} {kept.protocol} dport {kept.port}", verdict, f"kept: {kept}")


def _hook(kind: str, hook: str, priority: int) -> str:
    return f"type {kind} hook {hook} priority {priority}; policy accept;"


def _rule(match: str, verdict: str, comment: str) -> str:
    return f'{match} counter {verdict} comment "{comment}"'


def _chain(name: str, rules: Iterable[str]) -> str:
    return f"    chain {name} {{\n{''.join(f'        {rule}\n' for rule in rules)}    }}\n"


def _set(name: str, ports: Iterable[int]) -> str:
    return f"    set {name} {{\n        type inet_service\n        elements = {_elements(ports)}\n    }}\n"


def _elements(ports: Iterable[int]) -> str:
    return f"{{ {', '.join(map(str, sorted(ports)))} }}"


def _interfaces(names: Iterable[str]) -> str:
    return f"{{ {', '.join(f'"{name}"' for name in names)} }}"
