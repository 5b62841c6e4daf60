"""Transparent modes: is the address that the client dialled one that the name has? And if not, which are dialled?

The client names a host and dials an address of its own choice. Only the name was allowed, so only its addresses may be
reached, whatever `check` the rule has: `redial` and `audit` decide what becomes of the connection, and never send a
packet to the address that the client chose.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

from .destination import plain
from .hostname import Address
from .rule import AddressCheck


class Agreement(StrEnum):
    """How the dialled address and the name went together. The values stand in the access log."""

    MATCH = "match"
    MISMATCH = "mismatch"
    """Refused."""
    REDIALLED = "redialled"
    AUDITED = "audited"
    """Redialled, and counted as a contradiction."""


_OTHERWISE = {
    AddressCheck.ENFORCE: Agreement.MISMATCH,
    AddressCheck.REDIAL: Agreement.REDIALLED,
    AddressCheck.AUDIT: Agreement.AUDITED,
}


@dataclass(frozen=True, slots=True)
class Checked:
    agreement: Agreement
    addresses: tuple[Address, ...]
    """Addresses to judge and to dial; empty where the connection is refused."""


def check_address(check: AddressCheck, dialled: Address, own: Sequence[Address]) -> Checked:
    """`dialled` is where the client went, `own` are the addresses of the name that it gave."""
    dialled = plain(dialled)
    own = tuple(map(plain, own))
    if dialled in own:
        return Checked(Agreement.MATCH, (dialled,))
    agreement = _OTHERWISE[check]
    return Checked(agreement, () if agreement is Agreement.MISMATCH else own)
