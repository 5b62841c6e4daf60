"""Programs on a machine of the lab: what they find there, and that they end."""

import subprocess
from pathlib import Path

import pytest

from support.ca import SessionCa
from support.machine import Machine
from support.networks import TwoNetworks
from support.waiting import eventually

pytestmark = [pytest.mark.private_network, pytest.mark.root]


@pytest.fixture
def desk(networks: TwoNetworks, ca: SessionCa, tmp_path: Path) -> Machine:
    return Machine(networks.client, tmp_path, name_server="192.0.2.53", trusts=ca.pem_path, resolver_options="use-vc")


def test_a_program_has_a_name_server_of_its_own(desk: Machine) -> None:
    before = Path("/etc/resolv.conf").read_text()
    ended = desk.run("cat", "/etc/resolv.conf")
    assert ended.check().out == "nameserver 192.0.2.53\noptions use-vc\n"
    assert Path("/etc/resolv.conf").read_text() == before


def test_a_program_is_on_the_host_with_nothing_of_the_user_s(
    desk: Machine, ca: SessionCa, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("https_proxy", "http://127.0.0.1:1")
    ended = desk.run("sh", "-c", 'echo "$https_proxy|$HOME|$PWD|$SSL_CERT_FILE|$MORE"; ip -o addr', MORE="x y")
    first, rest = ended.check().out.split("\n", 1)
    assert first == f"|{desk.home}|{desk.home}|{ca.pem_path}|x y"
    assert "10.66.0.2/24" in rest


def test_what_a_program_leaves_behind_ends_with_it(desk: Machine, networks: TwoNetworks) -> None:
    ended = desk.run("sh", "-c", "sleep 300 & echo gone; exit 7")
    assert (ended.code, ended.out) == (7, "gone\n")
    eventually(lambda: not networks.client.processes(), "the end of them all")


def test_a_program_that_does_not_end_is_ended(desk: Machine, networks: TwoNetworks) -> None:
    with pytest.raises(subprocess.TimeoutExpired):
        desk.run("sh", "-c", "sleep 300 & sleep 300", timeout=0.3)
    eventually(lambda: not networks.client.processes(), "the end of them all")
