"""A Debian mirror and a Git repository as folders of files, which any web server can serve."""

import gzip
import hashlib
import subprocess
from pathlib import Path

PACKAGE, VERSION = "kind-greeting", "1.0"
DEB = f"{PACKAGE}_{VERSION}_all.deb"
README = "A project worth cloning.\n"

_CONTROL = f"""\
Package: {PACKAGE}
Version: {VERSION}
Architecture: all
Maintainer: Nobody <nobody@mirror.example>
Description: says hello
"""
_WHO = ("-c", "user.name=Nobody", "-c", "user.email=nobody@git.example")


def make_debian_mirror(folder: Path) -> None:
    """A flat repository, for `deb [trusted=yes] http://HOST/ ./`, with one package in it."""
    tree = folder / "tree"
    (tree / "DEBIAN").mkdir(parents=True)
    (tree / "DEBIAN" / "control").write_text(_CONTROL, encoding="ascii")
    _run(folder, "dpkg-deb", "--root-owner-group", "--build", tree, folder / DEB)
    deb = (folder / DEB).read_bytes()
    index = f"{_CONTROL}Filename: ./{DEB}\nSize: {len(deb)}\nSHA256: {_sha256(deb)}\n".encode()
    files = {"Packages": index, "Packages.gz": gzip.compress(index)}
    lines = [f" {_sha256(data)} {len(data)} {name}" for name, data in files.items()]
    release = "\n".join(["Origin: mirror", "Date: Thu, 01 Jan 2026 00:00:00 UTC", "SHA256:", *lines, ""])
    for name, data in (files | {"Release": release.encode()}).items():
        (folder / name).write_bytes(data)


def make_git_repository(folder: Path) -> None:
    """A bare repository with one commit, ready to be fetched as plain files (the "dumb" HTTP protocol)."""
    work = folder / "work"
    _run(folder, "git", "init", "--quiet", "--initial-branch=main", work)
    (work / "README").write_text(README, encoding="ascii")
    _run(work, "git", "add", "README")
    _run(work, "git", *_WHO, "commit", "--quiet", "--no-gpg-sign", "--message=The first")
    _run(folder, "git", "clone", "--quiet", "--bare", work, folder / "project.git")
    _run(folder / "project.git", "git", "update-server-info")


def _run(where: Path, *command: str | Path) -> None:
    """Without the settings of whoever runs the tests."""
    env = {"PATH": "/usr/local/bin:/usr/bin:/bin", "HOME": str(where), "GIT_CONFIG_NOSYSTEM": "1"}
    subprocess.run(command, cwd=where, env=env, check=True, capture_output=True)


def _sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()
