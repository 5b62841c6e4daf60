"""The gateway, started as its users start it: scripts/gateway."""

from __future__ import annotations

import os
import re
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Mapping, Sequence
from pathlib import Path

from bench import place
from bench.programs import Program, ProgramFailed
from bench.subjects.subject import Running, Setting, started

_PER_FILE = 500
NAME = "gateway"
_CODE = re.compile(r"workers? on \w+, (.+)\.$", re.MULTILINE)
_PATIENCE = 180.0
"""Seconds until it is ready: a hundred thousand rules are loaded first."""


def start(programs: Mapping[str, str], setting: Setting) -> Running:
    script = programs[NAME]
    rules = setting.folder / "rules"
    rules.mkdir()
    write_rules(rules, setting.names)
    command = [script, "--rules", str(rules), "--listen-port", str(setting.port)]
    command += ["--metrics-listen", f"127.0.0.1:{metrics_port(setting)}"]
    if setting.log:
        command += ["--access-log", str(setting.folder / "access.log")]
    if takes_workers(script):
        command += ["--workers", str(setting.workers)]
    options = {
        "confdir": setting.folder / "conf",
        "flow_detail": 0,  # no line a request on the terminal: the others have none, and a log is the access log
        "egress_public_ranges": place.NETWORK,
        "egress_max_connections_per_client": 1_000_000,
        "ssl_verify_upstream_trusted_ca": setting.ca,
    }
    for name, value in options.items():
        command += ["--set", f"{name}={value}"]
    program = Program(NAME, command, setting.folder, dict(os.environ) | {"HOME": str(setting.folder)})
    port = setting.port
    running = started(Running(NAME, program, http=port, originate=port, connect=port), _PATIENCE)
    try:
        _wait_ready(running, metrics_port(setting))
    except BaseException:
        running.stop()
        raise
    return running


def metrics_port(setting: Setting) -> int:
    return setting.port + 1


def metric(running: Running, name: str) -> float:
    """The sum of the samples of this name."""
    with urllib.request.urlopen(f"http://127.0.0.1:{running.http + 1}/metrics", timeout=10) as answer:
        text = answer.read().decode()
    samples = (line.rpartition(" ") for line in text.splitlines() if not line.startswith("#"))
    return sum(float(value) for sample, _, value in samples if sample.partition("{")[0] == name)


def write_rules(folder: Path, names: Sequence[str], prefix: str = "bench") -> None:
    """A rule for each name: plain HTTP on 80, HTTPS on 443, 8443 and 9443."""
    for first in range(0, len(names), _PER_FILE):
        chunk = names[first : first + _PER_FILE]
        text = "---\n".join(rule(f"{prefix}-{first + i}", name) for i, name in enumerate(chunk))
        temporary = folder / f".{prefix}-{first:06}.new"
        temporary.write_text(text, encoding="ascii")
        temporary.replace(folder / f"{prefix}-{first:06}.yaml")


def rule(name: str, host: str) -> str:
    return (
        f"apiVersion: egress.mitmproxy/v1\nkind: EgressRule\nmetadata: {{name: {name}}}\n"
        f'spec:\n  destination: {{services: ["{host}"]}}\n  ports:\n'
        "  - {port: 80, protocol: http}\n  - {port: 443, protocol: https}\n"
        f"  - {{port: {place.UP_PORT}, protocol: https}}\n"
        f"  - {{port: {place.STRESS_PORT}, protocol: https}}\n"
    )


def code(folder: Path) -> str:
    """Whether those that were started in folders of this one were compiled or interpreted, as they have said; empty
    where none was."""
    said = set()
    for output in folder.glob(f"*/{NAME}.out"):
        said.update(_CODE.findall(output.read_text(encoding="utf-8", errors="replace")))
    return "; ".join(sorted(said))


def takes_workers(script: str) -> bool:
    return "--workers" in subprocess.run([script, "--help"], capture_output=True, text=True, check=False).stdout


def _wait_ready(running: Running, port: int, timeout: float = _PATIENCE) -> None:
    """With many rules the port answers before the rules are read."""
    deadline = time.monotonic() + timeout
    while True:
        running.program.check()
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/readyz", timeout=5):
                return
        except (OSError, urllib.error.URLError) as error:
            if time.monotonic() > deadline:
                raise ProgramFailed(f"{NAME} was not ready within {timeout:g} s: {error}") from error
            time.sleep(0.05)
