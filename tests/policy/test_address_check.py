"""The heart of the transparent gateway: what becomes of an address that is not one of the name's."""

from __future__ import annotations

from ipaddress import ip_address

import pytest

from egress_gateway.policy.address_check import Agreement, Checked, check_address
from egress_gateway.policy.hostname import Address
from egress_gateway.policy.rule import AddressCheck

TRUE, ALSO, EVIL = (ip_address(text) for text in ("203.0.113.10", "203.0.113.11", "203.0.113.66"))
OWN = (TRUE, ALSO)

CASES: dict[str, tuple[AddressCheck, Address, tuple[Address, ...], Checked]] = {
    "its own address is dialled, and only that one": (
        AddressCheck.ENFORCE, ALSO, OWN, Checked(Agreement.MATCH, (ALSO,)),
    ),
    "so it is where others would be redialled": (AddressCheck.REDIAL, TRUE, OWN, Checked(Agreement.MATCH, (TRUE,))),
    "and where they are audited": (AddressCheck.AUDIT, TRUE, OWN, Checked(Agreement.MATCH, (TRUE,))),
    "another address is refused": (AddressCheck.ENFORCE, EVIL, OWN, Checked(Agreement.MISMATCH, ())),
    "redial goes to the name's own": (AddressCheck.REDIAL, EVIL, OWN, Checked(Agreement.REDIALLED, OWN)),
    "audit too": (AddressCheck.AUDIT, EVIL, OWN, Checked(Agreement.AUDITED, OWN)),
    "a mapped spelling is the same place": (
        AddressCheck.ENFORCE, ip_address("::ffff:203.0.113.10"), OWN, Checked(Agreement.MATCH, (TRUE,)),
    ),
    "also in the name's addresses": (
        AddressCheck.ENFORCE, TRUE, (ip_address("::ffff:203.0.113.10"),), Checked(Agreement.MATCH, (TRUE,)),
    ),
    "a name without addresses agrees with none": (AddressCheck.ENFORCE, EVIL, (), Checked(Agreement.MISMATCH, ())),
    "and leads nowhere": (AddressCheck.REDIAL, EVIL, (), Checked(Agreement.REDIALLED, ())),
}  # fmt: skip


@pytest.mark.parametrize(("check", "dialled", "own", "expected"), CASES.values(), ids=CASES)
def test_check_address(check: AddressCheck, dialled: Address, own: tuple[Address, ...], expected: Checked) -> None:
    assert check_address(check, dialled, own) == expected


@pytest.mark.parametrize("check", AddressCheck)
def test_no_check_ever_dials_the_address_that_is_not_the_names(check: AddressCheck) -> None:
    assert EVIL not in check_address(check, EVIL, OWN).addresses
