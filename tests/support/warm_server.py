"""Imports modules once, then forks for each program that is asked for; see `support.warm`, which starts this file.

It never runs a program itself, has one thread, and ends with the socket that it takes its orders from. It must not
import anything of this folder, in which a module has the name of one of Python's (`http`).

Each order is one message, JSON, and so is each answer:

    {"run": "module:function", "command": ..., "env": ..., "cwd": ..., "first_on_path": ...} with four descriptors,
        for the three standard streams and the network namespace    the number of the process
    {"poll": number}                                                its exit code, null while it runs

What is run is a function, as by a program's script, or without one the module, as by `python -m`.
"""

import contextlib
import ctypes
import gc
import importlib
import io
import json
import os
import pkgutil
import runpy
import signal
import socket
import sys
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from typing import Any

LONGEST = 1 << 20
_DESCRIPTORS = 4
_PR_SET_PDEATHSIG = 1
_libc = ctypes.CDLL(None)


def serve(orders: socket.socket) -> Callable[[], Any]:
    """Returns in each child, with what the child is to run."""
    while True:
        message, descriptors, _, _ = socket.recv_fds(orders, LONGEST, _DESCRIPTORS)
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
                return _become(order, descriptors, parent=server)
            for descriptor in descriptors:
                os.close(descriptor)
        orders.send(json.dumps(answer).encode())


def _become(order: dict[str, Any], descriptors: list[int], parent: int) -> Callable[[], Any]:
    os.setsid()
    _libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:  # it ended meanwhile
        os._exit(1)
    *streams, network = descriptors
    if not os.path.sameopenfile(network, os.open("/proc/self/ns/net", os.O_RDONLY)):
        os.setns(network, os.CLONE_NEWNET)
    for number, descriptor in enumerate(streams):
        os.dup2(descriptor, number)
    os.closerange(3, os.sysconf("SC_OPEN_MAX"))
    os.chdir(order["cwd"])
    os.environ.clear()
    os.environ.update(order["env"])
    for number, name in enumerate(("stdin", "stdout", "stderr")):
        stream = _stream(number, "w" if number else "r", getattr(sys, name))
        setattr(sys, name, stream)
        setattr(sys, f"__{name}__", stream)
    sys.argv = order["command"]
    sys.path[:0] = order["first_on_path"]
    module, _, function = order["run"].partition(":")
    if not function:
        sys.modules.pop(module, None)  # it runs anew, as __main__
        return partial(runpy.run_module, module, run_name="__main__", alter_sys=True)
    found: Callable[[], Any] = getattr(importlib.import_module(module), function)
    return found


def _stream(descriptor: int, mode: str, like: io.TextIOWrapper) -> io.TextIOWrapper:
    """A standard stream as Python makes it when it starts."""
    unbuffered = mode == "w" and bool(os.environ.get("PYTHONUNBUFFERED"))
    encoding, _, errors = os.environ.get("PYTHONIOENCODING", "").partition(":")
    if encoding and descriptor != 2:
        errors = errors or "strict"
    raw = io.FileIO(descriptor, mode, closefd=False)
    buffered = io.BufferedReader if mode == "r" else io.BufferedWriter
    return io.TextIOWrapper(
        raw if unbuffered else buffered(raw),
        encoding=encoding or like.encoding,
        errors=like.errors if descriptor == 2 else errors or like.errors,
        line_buffering=descriptor == 2,
        write_through=unbuffered,
    )


def _main(descriptor: int, modules: list[str]) -> Callable[[], Any]:
    with contextlib.suppress(PermissionError):
        # It is nowhere, or it would be in the network in which it was needed first, when that is to be taken down.
        os.unshare(os.CLONE_NEWNET)
    for name in _named(modules):
        module, _, function = name.partition(":")
        imported = importlib.import_module(module)
        if function:
            getattr(imported, function)()
    gc.collect()
    gc.freeze()  # or every collection in a child would copy all of this
    if len(os.listdir("/proc/self/task")) != 1:
        sys.exit(f"importing {modules} has started a thread, so no fork can be trusted")
    orders = socket.socket(fileno=descriptor)
    orders.send(b'"ready"')
    return serve(orders)


def _named(modules: Iterable[str]) -> Iterator[str]:
    """The modules; `package.*` is every module in a package, but not what runs when the package does.

    Of `module:function` the function is called, too.
    """
    for module in modules:
        if module.endswith(".*"):
            package = importlib.import_module(module.removesuffix(".*"))
            found = [each.name for each in pkgutil.iter_modules(package.__path__)]
            yield from (f"{package.__name__}.{name}" for name in found if name != "__main__")
        else:
            yield module


if __name__ == "__main__":
    program = _main(int(sys.argv[1]), sys.argv[2:])
    sys.exit(program())
