"""Starts the keeper (see `keeper`), a process that outlives the command that starts it."""

from __future__ import annotations

import os
import select
import subprocess
import sys

from .log_file import last_lines, open_log
from .processes import Process
from .state import State
from .terminal import Failure

_SECONDS = 20.0
READY = b"ready\n"


def start(state: State) -> Process:
    """Returns when the keeper watches the rules. Raises `Failure`, and then there is none."""
    reading, writing = os.pipe()
    with open(reading, "rb") as told, open_log(state.keeper_log) as log:
        try:
            started = subprocess.Popen(  # noqa: S603  # our own module
                [sys.executable, "-P", "-m", f"{__package__}.keeper", str(state.directory), str(writing)],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                cwd="/",
                pass_fds=(writing,),
                start_new_session=True,
            )
        finally:
            os.close(writing)
        # The end of the pipe is the end of the keeper, unless it has said that it is ready before.
        ready = bool(select.select([told], [], [], _SECONDS)[0]) and told.readline() == READY
    process = Process.of(started.pid)
    if ready and process is not None:
        process.write(state.keeper)
        return process
    started.kill()
    started.wait()
    raise Failure(f"the keeper, which follows the rules, did not start: {last_lines(state.keeper_log)}")
