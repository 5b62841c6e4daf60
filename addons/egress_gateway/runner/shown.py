"""Where the log goes: errors to standard error, everything else to standard output.

mitmproxy's own programs write all of it to standard output, and some of what is wrong at the start to standard error.
Who keeps one of the two for what went wrong would miss half of it.
"""

from __future__ import annotations

import logging
import sys

from mitmproxy.addons.termlog import TermLogHandler
from mitmproxy.master import Master


def part_errors(master: Master) -> None:
    """From now on, in this process and those that it forks."""
    others = master._termlog_addon
    if others is None:
        return
    others.logger.addFilter(lambda record: record.levelno < logging.ERROR)
    errors = TermLogHandler(sys.stderr)  # with colours where that is a terminal, whatever the other one is
    errors.setLevel(logging.ERROR)
    errors.install()
