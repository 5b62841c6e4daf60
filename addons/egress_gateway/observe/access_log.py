"""The access log: a line for each request, tunnel and refusal, in a file or on standard output."""

from __future__ import annotations

from egress_gateway.policy.events import Exchange, Observer

from .access_line import line
from .line_writer import LineWriter
from .output import DescriptorOutput, FileOutput

_STDOUT = 1


class AccessLog(Observer):
    """Writes to the file `target`; `-` is standard output. Raises OSError if the file cannot be opened.

    `queue_size` is in lines and `max_line` in bytes. Lines that cannot be written in time are dropped and
    counted.
    """

    def __init__(self, target: str, *, queue_size: int = 10_000, max_line: int = 16 * 1024) -> None:
        output = DescriptorOutput(_STDOUT, "standard output") if target == "-" else FileOutput(target, "access log")
        self._writer = LineWriter(
            output,
            lambda exchange: line(exchange, max_line).encode("ascii"),
            name="access log",
            queue_size=queue_size,
        )

    @property
    def dropped(self) -> int:
        """How many lines were not written."""
        return self._writer.dropped

    def finished(self, exchange: Exchange) -> None:
        self._writer.put(exchange)

    def reopen(self) -> None:
        """Opens the file anew, before the next line (after a log rotation)."""
        self._writer.reopen()

    def close(self, timeout: float = 2.0) -> None:
        """Writes what is queued, for at most `timeout` seconds."""
        self._writer.close(timeout)
