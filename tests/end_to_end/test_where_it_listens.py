"""Where `scripts/gateway` listens: on loopback, but on every address in the modes that the network sends clients to."""

from __future__ import annotations

import os
import re
import subprocess
from pathlib import Path

import pytest

from support.gateway import REPOSITORY
from support.process import Process
from support.sockets import free_port
from support.waiting import eventually

EVERYWHERE = {"0.0.0.0", "[::]"}
LOOPBACK = {"127.0.0.1"}
CASES: dict[str, tuple[list[str], dict[str, set[str]]]] = {
    "transparent and dns on every address, the proxy on loopback": (
        ["--mode", "transparent@{a}", "--mode=dns@{b}", "-m", "regular@{c}", "-mtransparent", "-p", "{d}"],
        {"tcp a": EVERYWHERE, "tcp b": EVERYWHERE, "udp b": EVERYWHERE, "tcp c": LOOPBACK, "tcp d": EVERYWHERE},
    ),
    "an address of its own counts": (
        ["--mode", "transparent@127.0.0.1:{a}", "--mode", "regular@0.0.0.0:{b}"],
        {"tcp a": LOOPBACK, "tcp b": {"0.0.0.0"}},
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_where_it_listens(case: str, tmp_path: Path) -> None:
    arguments, expected = CASES[case]
    ports = {name: free_port() for name in "abcd"}
    (tmp_path / "rules").mkdir()
    gateway = Process(
        [
            str(REPOSITORY / "scripts" / "gateway"),
            *("--rules", str(tmp_path / "rules"), "--metrics-listen", f"127.0.0.1:{free_port()}"),
            *(argument.format(**ports) for argument in arguments),
        ],
        {**os.environ, "HOME": str(tmp_path)},
        tmp_path,
    )
    try:
        wanted = {(key[:3], ports[key[-1]]): where for key, where in expected.items()}
        eventually(
            lambda: gateway.exit_code is not None or bound(wanted) == wanted,
            lambda: f"{wanted}, there is {bound(wanted)}:\n{gateway.output}",
            timeout=20,
            every=0.1,
        )
        assert gateway.exit_code is None, gateway.output
    finally:
        gateway.stop()


def bound(wanted: dict[tuple[str, int], set[str]]) -> dict[tuple[str, int], set[str]]:
    """The addresses that ss(8) shows for each of these."""
    listed = subprocess.run(["ss", "-Hltnu"], capture_output=True, text=True, check=True).stdout
    lines = re.findall(r"^(tcp|udp) +\S+ +\d+ +\d+ +(\S+):(\d+) ", listed, re.MULTILINE)
    return {
        (transport, port): {where for kind, where, number in lines if (kind, int(number)) == (transport, port)}
        for transport, port in wanted
    }
