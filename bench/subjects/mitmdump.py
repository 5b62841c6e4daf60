"""Plain mitmdump, without an addon of ours, and so without a list of allowed names. Tunnels pass undecrypted."""

from __future__ import annotations

import os
from collections.abc import Mapping

from bench.programs import Program
from bench.subjects.subject import Running, Setting, started

NAME = "mitmdump"


def start(programs: Mapping[str, str], setting: Setting) -> Running:
    command = [programs[NAME], "--listen-host", "127.0.0.1", "--listen-port", str(setting.port)]
    command += ["--ignore-hosts", ".*:(443|8443)$", "--set", f"confdir={setting.folder / 'conf'}"]
    command += ["--set", f"ssl_verify_upstream_trusted_ca={setting.ca}"]
    command += ["--flow-detail", "1"] if setting.log else ["--quiet"]
    program = Program(NAME, command, setting.folder, dict(os.environ) | {"HOME": str(setting.folder)})
    return started(Running(NAME, program, http=setting.port, connect=setting.port))
