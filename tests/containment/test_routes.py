"""The default route, out of the kernel's tables."""

from __future__ import annotations

from pathlib import Path

import pytest

from egress_gateway.containment.attempt.family import Family
from egress_gateway.containment.routes import default_router
from support.networks import TwoNetworks

HEAD_V4 = "Iface\tDestination\tGateway \tFlags\tRefCnt\tUse\tMetric\tMask\t\tMTU\tWindow\tIRTT\n"


def route_v4(destination: str, gateway: str, flags: str = "0003", metric: int = 0, mask: str = "00000000") -> str:
    return f"eth0\t{destination}\t{gateway}\t{flags}\t0\t0\t{metric}\t{mask}\t0\t0\t0\n"


def route_v6(length: str, gateway: str, metric: str = "00000400", flags: str = "00000003") -> str:
    nowhere = "0" * 32
    return f"{nowhere} {length} {nowhere} 00 {gateway} {metric} 00000001 00000000 {flags} eth0\n"


V4 = {
    "the only one": (route_v4("00000000", "0142420A"), "10.66.66.1"),
    "the one of the lowest metric": (
        route_v4("00000000", "0242420A", metric=100) + route_v4("00000000", "0142420A", metric=20),
        "10.66.66.1",
    ),
    "none by a network of its own": (route_v4("0042420A", "00000000", "0001", mask="00FFFFFF"), None),
    "none by half of the world": (route_v4("00000000", "0142420A", mask="00000080"), None),
    "none without a router": (route_v4("00000000", "00000000", "0001"), None),
    "none at all": ("", None),
}
ULA, LINK_LOCAL = "fd66" + "0" * 27 + "1", "fe80" + "0" * 27 + "1"
V6 = {
    "the only one": (route_v6("00", ULA), "fd66::1"),
    "a link-local one has a zone": (route_v6("00", LINK_LOCAL), "fe80::1%eth0"),
    "the one of the lowest metric": (route_v6("00", LINK_LOCAL) + route_v6("00", ULA, "00000064"), "fd66::1"),
    "none by a prefix": (route_v6("20", ULA), None),
    "none without a router": (route_v6("00", "0" * 32, flags="00200200"), None),
}


@pytest.mark.parametrize("case", V4)
def test_ipv4(tmp_path: Path, case: str) -> None:
    table, router = V4[case]
    (tmp_path / "route").write_text(HEAD_V4 + table)
    assert default_router(Family.V4, tmp_path) == router


@pytest.mark.parametrize("case", V6)
def test_ipv6(tmp_path: Path, case: str) -> None:
    table, router = V6[case]
    (tmp_path / "ipv6_route").write_text(table)
    assert default_router(Family.V6, tmp_path) == router


def test_a_kernel_without_ipv6_has_no_such_table(tmp_path: Path) -> None:
    assert default_router(Family.V6, tmp_path) is None


def test_on_a_real_machine(networks: TwoNetworks) -> None:
    with networks.client.entered():
        assert default_router(Family.V4) == "10.66.0.1"
        assert default_router(Family.V6) == "fd66::1"
