"""The keeper: a process of root's that keeps the packet filter's ports in step with the rules.

Started by `gateway-up`, ended by `gateway-down`. The rules of this file:

- A rules directory that does not load leaves the ports as they are, as it leaves the gateway's rules.
- What is in the kernel is compared with what is wanted after every change of either, so that nothing is lost when
  one change fails, and a table that somebody flushed (`systemctl restart nftables`) is there again within a second.
- Only the set of ports, and whole chains, are looked after: single rules are the operator's to try out.
- It says what it does, a line each.
"""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import sys
import time
from collections.abc import Sequence
from contextlib import ExitStack, suppress
from pathlib import Path

from egress_gateway.config.load import Snapshot
from egress_gateway.config.problem import Problem
from egress_gateway.config.watch import RulesWatcher

from .keeper_process import READY
from .layout import Layout
from .nft import Nft, NftError
from .ports import ALWAYS, first_of, listed, ports_of
from .ruleset import TABLE, render, rules_by_chain
from .state import State
from .terminal import Failure

_RETRY_SECONDS = 1.0
_SETTLE_SECONDS = 0.3
_NETLINK_NETFILTER = 12
_NFTABLES_GROUP = 1 << 6  # NFNLGRP_NFTABLES: a message for every change of any table


class Keeper:
    """Brings the kernel to `wanted` whenever either may have changed."""

    def __init__(self, nft: Nft, layout: Layout, wanted: frozenset[int]) -> None:
        self._nft = nft
        self._layout = layout
        self._wanted = wanted
        self._changed = asyncio.Event()
        self._looking = False
        self._failed = ""  # what went wrong the last time, which is said once
        self._broken = False  # whether the rules did not load the last time

    def on_loaded(self, loaded: Snapshot) -> None:
        if self._broken:
            say("the rules load again")
        self._broken = False
        self._wanted = ports_of(loaded.ruleset)
        self._changed.set()

    def on_failed(self, problems: Sequence[Problem]) -> None:
        self._broken = True
        say(f"the rules do not load, the ports stay: {first_of(problems)}")

    def on_kernel(self, events: socket.socket) -> None:
        """Somebody, perhaps we, changed a table. Many changes in a row are looked at once."""
        with suppress(OSError):  # also ENOBUFS: there were too many to tell
            while events.recv(65536):
                pass
        if not self._looking:
            self._looking = True
            asyncio.get_running_loop().call_later(_SETTLE_SECONDS, self._look)

    def _look(self) -> None:
        self._looking = False
        self._changed.set()

    async def run(self) -> None:
        """Until cancelled."""
        while True:
            with suppress(TimeoutError):
                await asyncio.wait_for(self._changed.wait(), _RETRY_SECONDS if self._failed else None)
            self._changed.clear()
            try:
                await asyncio.to_thread(self._converge, self._wanted)
                self._failed = ""
            except NftError as error:
                if str(error) != self._failed:
                    say(f"failed, trying again: {error}")
                self._failed = str(error)

    def _converge(self, wanted: frozenset[int]) -> None:
        ports = self._nft.ports()
        if ports is None or self._is_emptied():
            self._nft.load(render(self._layout, wanted))
            what = "gone" if ports is None else "emptied"
            say(f"table {TABLE} was {what} and is loaded again (gateway-down removes it for good)")
        elif ports != wanted:
            self._nft.swap(wanted)
            say(f"ports redirected: {listed(wanted)}{_difference(ports, wanted)}")

    def _is_emptied(self) -> bool:
        """Whether a chain of several rules has none any more. One rule less is the operator's doing, and stays."""
        now = self._nft.rules_by_chain()
        return any(count > 1 and not now[chain] for chain, count in rules_by_chain(self._layout).items())


def _difference(before: frozenset[int], now: frozenset[int]) -> str:
    parts = [f"{word} {listed(some)}" for word, some in (("new", now - before), ("gone", before - now)) if some]
    return f" ({', '.join(parts)})"


def say(line: str) -> None:
    print(f"{time.strftime('%Y-%m-%dT%H:%M:%S%z')} {line}", flush=True)


async def follow(state: State, ready: int) -> None:
    """Until a signal comes. Tells `ready`, a descriptor, when the rules are watched. Raises `Failure`."""
    installed = state.installed()
    if installed is None:
        raise Failure(f"{state.directory} does not say what is installed (run gateway-up)")
    nft = Nft.find()
    keeper = Keeper(nft, installed.layout, nft.ports() or ALWAYS)
    loop = asyncio.get_running_loop()
    ended = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, ended.set)
    with ExitStack() as stack:
        events = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_NONBLOCK, _NETLINK_NETFILTER)
        stack.callback(events.close)
        events.bind((0, _NFTABLES_GROUP))
        loop.add_reader(events, keeper.on_kernel, events)
        stack.callback(loop.remove_reader, events)
        async with RulesWatcher(installed.rules, keeper.on_loaded, keeper.on_failed):
            os.write(ready, READY)
            os.close(ready)
            say(f"following {installed.rules}")
            task = asyncio.create_task(keeper.run())
            stopping = asyncio.create_task(ended.wait())
            # The keeper itself never ends; if it does, say why instead of sitting there.
            await asyncio.wait({task, stopping}, return_when=asyncio.FIRST_COMPLETED)
            for each in (task, stopping):
                each.cancel()
            await asyncio.wait({task, stopping})
            if not task.cancelled():
                task.result()
    say("ended")


def main(arguments: Sequence[str]) -> int:
    directory, ready = arguments
    try:
        asyncio.run(follow(State(Path(directory)), int(ready)))
    except Failure as failure:
        say(str(failure))
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
