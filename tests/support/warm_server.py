"""Imports modules once, then forks for each program that is asked for; see `support.warm`, which starts this file.

It never runs a program itself, has one thread, and ends with the socket that it takes its orders from. It must not
import anything of this folder, in which a module has the name of one of Python's (`http`).

Each order is one message, JSON, and so is each answer:

    {"run": [module, function], "command": ..., "env": ..., "cwd": ...} and two descriptors   the number of the process
    {"poll": number}                                                        its exit code, null while it runs
"""

import ctypes
import gc
import importlib
import io
import json
import os
import signal
import socket
import sys
from collections.abc import Callable
from typing import Any

LONGEST = 1 << 20
_PR_SET_PDEATHSIG = 1
_libc = ctypes.CDLL(None)


def serve(orders: socket.socket) -> Callable[[], Any]:
    """Returns in each child, with what the child is to run."""
    while True:
        message, descriptors, _, _ = socket.recv_fds(orders, LONGEST, 2)
        if not message:
            os._exit(0)
        order = json.loads(message)
        if "poll" in order:
            ended, status = os.waitpid(order["poll"], os.WNOHANG)
            answer = os.waitstatus_to_exitcode(status) if ended else None
        else:
            server = os.getpid()
            answer = os.fork()
            if answer == 0:
                orders.close()
                return _become(order, *descriptors, parent=server)
            for descriptor in descriptors:
                os.close(descriptor)
        orders.send(json.dumps(answer).encode())


def _become(order: dict[str, Any], output: int, network: int, parent: int) -> Callable[[], Any]:
    os.setsid()
    _libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:  # it ended meanwhile
        os._exit(1)
    if not os.path.sameopenfile(network, os.open("/proc/self/ns/net", os.O_RDONLY)):
        os.setns(network, os.CLONE_NEWNET)
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    os.dup2(output, 1)
    os.dup2(output, 2)
    os.closerange(3, os.sysconf("SC_OPEN_MAX"))
    os.chdir(order["cwd"])
    os.environ.clear()
    os.environ.update(order["env"])
    unbuffered = bool(os.environ.get("PYTHONUNBUFFERED"))
    sys.stdin = sys.__stdin__ = _stream(0, "r", sys.stdin, False)
    sys.stdout = sys.__stdout__ = _stream(1, "w", sys.stdout, unbuffered)
    sys.stderr = sys.__stderr__ = _stream(2, "w", sys.stderr, unbuffered)
    sys.argv = order["command"]
    sys.path.insert(0, os.path.dirname(sys.argv[0]))  # as for a script
    module, function = order["run"]
    found: Callable[[], Any] = getattr(importlib.import_module(module), function)
    return found


def _stream(descriptor: int, mode: str, like: io.TextIOWrapper, unbuffered: bool) -> io.TextIOWrapper:
    """A standard stream as Python makes it when it starts."""
    raw = io.FileIO(descriptor, mode, closefd=False)
    buffered = io.BufferedReader if mode == "r" else io.BufferedWriter
    return io.TextIOWrapper(
        raw if unbuffered else buffered(raw),
        encoding=like.encoding,
        errors=like.errors,
        line_buffering=descriptor == 2,
        write_through=unbuffered,
    )


def _main(descriptor: int, modules: list[str]) -> Callable[[], Any]:
    for module in modules:
        importlib.import_module(module)
    gc.collect()
    gc.freeze()  # or every collection in a child would copy all of this
    if len(os.listdir("/proc/self/task")) != 1:
        sys.exit(f"importing {modules} has started a thread, so no fork can be trusted")
    orders = socket.socket(fileno=descriptor)
    orders.send(b'"ready"')
    return serve(orders)


if __name__ == "__main__":
    program = _main(int(sys.argv[1]), sys.argv[2:])
    sys.exit(program())
