"""The second question: which addresses of an allowed host may be dialled?

A name is resolved once, every address of the answer is judged here, and only an address that was judged is dialled,
so a DNS answer that changes in between (rebinding) changes nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from ipaddress import IPv6Address

from .addresses import REACHABLE_WITH_ALLOW_PRIVATE, AddressClass, Network, classify, is_in
from .hostname import Address
from .rule import AddressRange, EgressRule


@dataclass(frozen=True, slots=True)
class Judged:
    """Addresses that may be dialled, and the ones that may not with the class that forbids each."""

    allowed: tuple[Address, ...]
    refused: tuple[tuple[Address, AddressClass], ...]


def plain(address: Address) -> Address:
    """The IPv4 address behind an IPv4-mapped IPv6 one (`::ffff:192.0.2.1`), which sockets treat as the same place."""
    if isinstance(address, IPv6Address) and address.ipv4_mapped is not None:
        return address.ipv4_mapped
    return address


def judge(
    rule: EgressRule,
    addresses: Sequence[Address],
    *,
    public_ranges: Sequence[Network] = (),
    is_own: Callable[[Address], bool] = lambda _: False,
    is_denied: Callable[[Address], bool] = lambda _: False,
) -> Judged:
    """Sorts `addresses` into those that `rule` may reach and those it may not.

    `public_ranges` are treated as public whatever their class, except metadata. `is_own` tells an address of the
    gateway's own machine, `is_denied` one that a rule denies, by whatever name it is reached.
    """
    allowed: list[Address] = []
    refused: list[tuple[Address, AddressClass]] = []
    for address in map(plain, addresses):
        kind = classify(address)
        if is_denied(address):
            refused.append((address, AddressClass.DENIED))
            continue
        # Credentials live at metadata addresses: no range, however it is declared, is a wish to reach them.
        if kind is not AddressClass.METADATA and is_in(address, public_ranges):
            allowed.append(address)
            continue
        if kind is AddressClass.PUBLIC and is_own(address):
            kind = AddressClass.OWN
        if kind is AddressClass.PUBLIC or _opened(rule, address, kind):
            allowed.append(address)
        else:
            refused.append((address, kind))
    return Judged(tuple(allowed), tuple(refused))


def name_refused(refused: Sequence[tuple[Address, AddressClass]]) -> str:
    """Which addresses may not be reached and why, in one line for people."""
    if not refused:
        return "there is no address to dial"
    texts = [f"{address} ({kind.value.replace('_', ' ')})" for address, kind in refused[:4]]
    more = f" and {len(refused) - 4} more" if len(refused) > 4 else ""
    opened = any(kind in REACHABLE_WITH_ALLOW_PRIVATE for _, kind in refused)
    return f"{', '.join(texts)}{more} may not be reached{' without allowPrivate' if opened else ''}"


def _opened(rule: EgressRule, address: Address, kind: AddressClass) -> bool:
    if not rule.allow_private:
        return False
    if kind is AddressClass.METADATA:
        # Credentials live there: a name or a wide range that happens to hold the address is not a wish to reach it.
        return AddressRange.of(address) in rule.destinations
    return kind in REACHABLE_WITH_ALLOW_PRIVATE
