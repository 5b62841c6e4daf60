"""Where the log goes: errors to standard error, everything else to standard output.

mitmproxy's own programs write all of it to standard output, and some of what is wrong at the start to standard error.
Who keeps one of the two for what went wrong would miss half of it. They also end where nobody reads what they write; a
gateway goes on.
"""

from __future__ import annotations

import contextlib
import logging
import sys

from mitmproxy.addons.termlog import TermLogHandler
from mitmproxy.master import Master


class _Shown(TermLogHandler):
    def emit(self, record: logging.LogRecord) -> None:
        with contextlib.suppress(OSError):  # a full disk, or a reader that has gone
            print(self.format(record), file=self.file)


def part_errors(master: Master) -> None:
    """From now on, in this process and those that it forks."""
    addon = master._termlog_addon
    if addon is None:
        return
    others, errors = _Shown(sys.stdout), _Shown(sys.stderr)  # with colours, each where it is a terminal
    others.setLevel(addon.logger.level)
    others.addFilter(lambda record: record.levelno < logging.ERROR)
    errors.setLevel(logging.ERROR)
    addon.logger.uninstall()
    addon.logger = others
    others.install()
    errors.install()
