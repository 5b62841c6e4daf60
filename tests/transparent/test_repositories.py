"""apt and git on a machine that knows of no proxy: what builds fetch before they do anything else."""

from __future__ import annotations

import contextlib
import re
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from support.ca import SessionCa
from support.dns_server import DnsServer
from support.lab import rule
from support.machine import Ended, Machine
from support.networks import TwoNetworks
from support.origin import FileOrigin
from support.repositories import DEB, PACKAGE, README, VERSION, make_debian_mirror, make_git_repository
from support.transparent_gateway import MODES, TransparentGateway, guarded

AT_ONCE = 12.0
"""Seconds, nearly all of them a busy machine's. A question that is not answered is waited for longer."""
RULES = (
    rule("mirrors", "*.mirror.example", "80 http", "443 https")
    + rule("git", "*.git.example", "443 https")
    + rule("plain-only", "plain.example", "80 http")
)

pytestmark = [
    pytest.mark.skipif(shutil.which(program) is None, reason=f"{program} is not installed (scripts/test installs it)")
    for program in ("apt-get", "dpkg-deb", "git")
]


@dataclass(frozen=True, slots=True)
class Internet:
    mirror_host: str
    mirror: list[FileOrigin]
    """Plain, and with TLS."""
    git_host: str
    git: FileOrigin
    deb: bytes

    def named(self, url: str) -> str:
        return url.replace("MIRROR", self.mirror_host).replace("GIT", self.git_host)


@pytest.fixture(scope="module", params=["v4", "v6"])
def internet(
    request: pytest.FixtureRequest,
    networks: TwoNetworks,
    module_internet_dns: DnsServer,
    ca: SessionCa,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Internet]:
    mirror, git = tmp_path_factory.mktemp("mirror"), tmp_path_factory.mktemp("git")
    make_debian_mirror(mirror)
    make_git_repository(git)
    family = request.param
    mirror_at, git_at = {"v4": ("203.0.113.17", "203.0.113.18"), "v6": ("2001:db8:1::17", "2001:db8:1::18")}[family]
    mirror_host, git_host = f"{family}.mirror.example", f"{family}.git.example"
    module_internet_dns.set(mirror_host, [mirror_at])
    module_internet_dns.set(git_host, [git_at])
    module_internet_dns.set("plain.example", [networks.web.ipv4, networks.web.ipv6])
    module_internet_dns.set("denied.example", [networks.evil.ipv4, networks.evil.ipv6])
    with contextlib.ExitStack() as stack:
        start = stack.enter_context
        with networks.web.entered():
            made = Internet(
                mirror_host,
                [
                    start(FileOrigin(mirror_at, 80, folder=mirror)),
                    start(FileOrigin(mirror_at, 443, folder=mirror, certificate=ca.issue(mirror_host))),
                ],
                git_host,
                start(FileOrigin(git_at, 443, folder=git, certificate=ca.issue(git_host))),
                (mirror / DEB).read_bytes(),
            )
        yield made


@pytest.fixture(scope="module")
def gateway(transparent_gateway: Callable[..., TransparentGateway], internet: Internet) -> Iterator[TransparentGateway]:
    started = transparent_gateway(RULES, data_path="relay", modes=MODES)
    with guarded(started):
        yield started


@pytest.fixture
def apt(desk: Machine, gateway: TransparentGateway, tmp_path: Path) -> Callable[..., Ended]:
    """`apt("http://mirror/", "update")`: apt-get with that one source, and nothing of the machine's own."""
    for folder in ("etc/apt/apt.conf.d", "etc/apt/preferences.d", "var/lib/apt/lists/partial"):
        (tmp_path / folder).mkdir(parents=True)
    (tmp_path / "var/cache/apt/archives/partial").mkdir(parents=True)
    (tmp_path / "status").touch()
    settings = {
        "Dir": f"{tmp_path}/",
        "Dir::State::status": tmp_path / "status",
        "APT::Sandbox::User": "root",
        "APT::Update::Error-Mode": "any",
        "Acquire::Languages": "none",
        "Acquire::Retries": "0",  # its patience is seven seconds
    }
    (tmp_path / "apt.conf").write_text("".join(f'{name} "{value}";\n' for name, value in settings.items()))

    def run(source: str, *words: str) -> Ended:
        (tmp_path / "etc/apt/sources.list").write_text(f"deb [trusted=yes] {source} ./\n")
        return desk.run("apt-get", *words, APT_CONFIG=str(tmp_path / "apt.conf"))

    return run


@pytest.fixture(autouse=True)
def nothing_elsewhere(networks: TwoNetworks, gateway: TransparentGateway) -> Iterator[None]:
    """Whatever the test does, nothing comes to anybody else."""
    with networks.evil.wire() as wire:
        yield
        assert not [packet for packet in wire.packets if packet.proto != "icmp6"]  # the router's neighbours


@pytest.mark.parametrize("port", [80, 443], ids=["http", "TLS origination"])
def test_apt(apt: Callable[..., Ended], desk: Machine, internet: Internet, port: int) -> None:
    source = f"http://{internet.mirror_host}:{port}/"
    apt(source, "update").check()
    simulated = apt(source, "--simulate", "install", PACKAGE).check()
    assert f"Inst {PACKAGE} ({VERSION} " in simulated.out
    apt(source, "download", PACKAGE).check()
    assert (desk.home / DEB).read_bytes() == internet.deb
    (desk.home / DEB).unlink()
    assert f"/./{DEB}" in [fetched.target for fetched in internet.mirror[port == 443].fetched]


REFUSED_SOURCES = {
    "a host without a rule": ("http://denied.example/", "Could not resolve|Temporary failure resolving"),
    "a port that the rule has not": ("http://GIT/", "403  Forbidden"),
    "an address": ("http://203.0.113.66/", "403  Forbidden"),
    "a port that no rule names": ("http://MIRROR:8080/", "Connection refused"),
}


@pytest.mark.parametrize("case", REFUSED_SOURCES)
def test_apt_is_refused(apt: Callable[..., Ended], internet: Internet, case: str) -> None:
    source, said = REFUSED_SOURCES[case]
    ended = apt(internet.named(source), "update")
    assert ended.code == 100
    assert re.search(said, ended.err), ended.said
    assert ended.seconds < AT_ONCE


def test_git_clone(desk: Machine, gateway: TransparentGateway, internet: Internet, tmp_path: Path) -> None:
    desk.run("git", "clone", f"https://{internet.git_host}/project.git", tmp_path / "clone").check()
    assert (tmp_path / "clone" / "README").read_text() == README
    assert {fetched.host for fetched in internet.git.fetched} == {internet.git_host}
    gateway.wait_for_log(requested_server_name=internet.git_host, tls_mode="passthrough", verdict="allow")


REFUSED_REMOTES = {
    "a host without a rule": ("https://denied.example/p.git", "Could not resolve host"),
    "a host whose rule allows HTTP only": ("https://plain.example/p.git", "Access was denied|access denied"),
    "an address": ("https://203.0.113.66/p.git", "Access was denied|access denied|unrecognized name"),
    "a port that no rule names": ("https://GIT:8443/p.git", "Failed to connect|Connection refused"),
}


@pytest.mark.parametrize("case", REFUSED_REMOTES)
def test_git_is_refused(desk: Machine, internet: Internet, case: str, tmp_path: Path) -> None:
    url, said = REFUSED_REMOTES[case]
    ended = desk.run("git", "clone", internet.named(url), tmp_path / "clone")
    assert ended.code == 128
    assert re.search(said, ended.err), ended.said
    assert ended.seconds < AT_ONCE
