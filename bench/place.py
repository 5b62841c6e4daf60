"""A network and a hosts file of our own: nothing that runs here can reach a real address, or sees a real name.

- A network namespace with nothing but loopback. A documentation network is *routed* to it and not assigned, so that to
  the gateway its addresses are those of other machines, as in life.
- A mount namespace in which /etc/hosts has the names of the bench: the one way to resolve names that every proxy knows.
- Without root, a user namespace around both, where the system lets people have one.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import resource
import shutil
import subprocess
from pathlib import Path

NETWORK = "203.0.113.0/24"
ORIGIN = "203.0.113.10"
UPLOADS = "203.0.113.11"
OWN = "198.18.0.1"
"""What connections to the origins come from."""

WWW = "www.bench.example"
"""Plain HTTP on port 80."""
TLS = "tls.bench.example"
"""HTTPS on port 443."""
UP = "up.bench.example"
"""Takes uploads, HTTPS on port 8443."""
UP_PORT = 8443
STRESS_PORT = 9443
"""Where a client of ours is its own origin: begins as TLS does, on any of the names."""

_HOSTS = f"127.0.0.1 localhost\n{ORIGIN} {WWW} {TLS}\n{UPLOADS} {UP}\n"
_NETWORK_SETUP = f"""\
link set lo up
addr add {OWN}/32 dev lo
route add local {NETWORK} dev lo table main src {OWN}
"""
# Tunnels come and go by the ten thousand, and each leaves two ports behind for a minute.
_SETTINGS = {
    "net/ipv4/ip_local_port_range": "10240 65535",
    "net/ipv4/tcp_tw_reuse": "1",
    "net/core/somaxconn": "8192",
}
_MS_BIND, _MS_REC, _MS_PRIVATE = 0x1000, 0x4000, 0x40000
_LIBC = ctypes.CDLL(None, use_errno=True)


class NoPlace(Exception):
    """The text says what is missing."""


def enter(folder: Path) -> None:
    """Moves this process, and all it starts from now on, there. Call it while the process has one thread."""
    if shutil.which("ip") is None:
        raise NoPlace("the ip command is missing (package iproute2)")
    outside = os.readlink("/proc/self/ns/net")
    try:
        _unshare()
    except OSError as error:
        raise NoPlace(f"no namespaces of its own ({error.strerror}); run it as root") from error
    if os.readlink("/proc/self/ns/net") == outside:
        raise NoPlace("still in the network this was started in")
    done = subprocess.run(["ip", "-batch", "-"], input=_NETWORK_SETUP, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise NoPlace("ip: " + " ".join(done.stderr.split()))
    for name, value in _SETTINGS.items():
        Path("/proc/sys", name).write_text(value, encoding="ascii")
    _mount("none", "/", _MS_REC | _MS_PRIVATE)
    for name, text in (("hosts", _HOSTS), ("resolv.conf", "nameserver 127.0.0.1\noptions timeout:1 attempts:1\n")):
        path = folder / name
        path.write_text(text, encoding="ascii")
        path.chmod(0o644)
        _mount(str(path), os.path.realpath(f"/etc/{name}"), _MS_BIND)


def raise_descriptor_limit(wanted: int = 100_000) -> int:
    """As far as this user may; the limit that there is now. Programs inherit it."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard < wanted:
        with contextlib.suppress(ValueError, OSError):  # only root may, and not in every container
            resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, wanted))
            return wanted
    soft = max(soft, min(wanted, hard))
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    return soft


def _unshare() -> None:
    if os.geteuid() == 0:
        os.unshare(os.CLONE_NEWNET | os.CLONE_NEWNS)
        return
    user, group = os.geteuid(), os.getegid()
    os.unshare(os.CLONE_NEWUSER | os.CLONE_NEWNET | os.CLONE_NEWNS)
    # Root inside, so that port 443 is ours; still the same user outside.
    for name, text in (("setgroups", "deny"), ("uid_map", f"0 {user} 1"), ("gid_map", f"0 {group} 1")):
        Path("/proc/self", name).write_text(text, encoding="ascii")


def _mount(source: str, target: str, flags: int) -> None:
    if _LIBC.mount(source.encode(), target.encode(), None, flags, None) != 0:
        number = ctypes.get_errno()
        raise NoPlace(f"mount on {target}: {os.strerror(number)}")
