"""Makes the library: mypyc writes C, the C compiler compiles it, in parallel, and all of it becomes one file."""

import contextlib
import io
import os
import shlex
import shutil
import subprocess
import sysconfig
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from pathlib import Path

from egress_gateway.compiled import LIBRARY, library

from . import pitfalls

MYPY_OPTIONS = ("--config-file", str(Path(__file__).with_name("mypy.ini")))
FLAGS = ("-O1", "-g0", "-fPIC", "-fwrapv", "-fvisibility=hidden", "-DNDEBUG", "-w")
"""-O2 takes twice the time, and what it makes is no faster by more than can be measured. Nothing in the library is for
others, so calls in it need no indirection. Warnings are mypyc's business."""
PARTS_A_CORE = 4
"""Few, since each reads all the headers, but enough to keep all cores busy to the end."""

Progress = Callable[[str], None]


class Failed(Exception):
    """It cannot be compiled; the text says why, and what to install."""


@dataclass(frozen=True)
class Compiler:
    command: tuple[str, ...]
    """A program, and what it is always to be told."""

    @classmethod
    def find(cls) -> "Compiler":
        """Raises Failed."""
        header = Path(sysconfig.get_path("include")) / "Python.h"
        version = f"python{sysconfig.get_python_version()}"
        wanted = f"(Debian, Ubuntu: apt-get install gcc {version}-dev; Fedora: dnf install gcc {version}-devel)"
        asked = os.environ.get("CC")
        if asked:
            command = tuple(shlex.split(asked))
            if not (command and shutil.which(command[0])):
                raise Failed(f"CC={asked}: no such program")
        else:
            # What Python itself was built with may not be installed here.
            known = [(sysconfig.get_config_var("CC") or "cc").split()[0], "cc", "gcc", "clang"]
            command = tuple([each for each in known if shutil.which(each)][:1])
        if not command:
            raise Failed(f"needs a C compiler {wanted}")
        if not header.is_file():
            raise Failed(f"needs the headers of Python, {header} {wanted}")
        return cls(command)

    def __str__(self) -> str:
        return " ".join(self.command)

    def compile(self, source: Path, target: Path, folders: Sequence[str]) -> None:
        self._run(*FLAGS, *(f"-I{folder}" for folder in folders), "-c", str(source), "-o", str(target))

    def link(self, objects: Sequence[Path], target: Path) -> None:
        # On macOS the interpreter's own symbols are found when it is loaded.
        dynamic = ["-undefined", "dynamic_lookup"] if os.uname().sysname == "Darwin" else []
        self._run("-shared", "-s", *dynamic, *map(str, objects), "-o", str(target))

    def _run(self, *arguments: str) -> None:
        done = subprocess.run(
            [*self.command, *arguments], stdin=subprocess.DEVNULL, capture_output=True, text=True, errors="replace"
        )
        if done.returncode:
            said = (done.stderr or done.stdout).strip().splitlines()
            raise Failed(f"{self} failed: {said[0] if said else f'exit status {done.returncode}'}")


def build(sources: Path, modules: Sequence[Path], target: Path, scratch: Path, progress: Progress) -> None:
    """Makes the library from `modules`, paths below `sources`, in the folder `target`. Raises Failed.

    Changes the current folder, and must be called once a process: mypyc keeps state.
    """
    compiler = Compiler.find()
    if wrong := next(pitfalls.find(sources, modules), None):
        raise Failed(f"{wrong} (see compile/pitfalls.py)")
    progress(f"{len(modules)} modules into C (mypyc)")
    parts, folders = _c_sources(sources, modules, scratch)
    cores = _cores()
    progress(f"C into machine code ({compiler}, {cores} at a time)")
    objects = [part.with_suffix(".o") for part in parts]
    with ThreadPoolExecutor(cores) as pool:
        jobs = [pool.submit(compiler.compile, part, made, folders) for part, made in zip(parts, objects, strict=True)]
        try:
            for count, job in enumerate(as_completed(jobs), 1):
                job.result()
                progress(f"part {count} of {len(jobs)}")
        finally:
            pool.shutdown(cancel_futures=True)
    compiler.link(objects, library(target))


def _c_sources(sources: Path, modules: Sequence[Path], scratch: Path) -> tuple[list[Path], list[str]]:
    """Files of C to compile, the largest first, and where they find their headers."""
    # They are slow to import, and not needed where nothing is to be done.
    from mypyc.build import include_dir, mypycify
    from mypyc.common import RUNTIME_C_FILES

    os.chdir(sources)  # so that a traceback names files as they lie in the package
    said = io.StringIO()
    try:
        with contextlib.redirect_stdout(said), contextlib.redirect_stderr(said):
            made = mypycify(
                [*MYPY_OPTIONS, *map(str, modules)],
                multi_file=True,
                group_name=LIBRARY.removesuffix("__mypyc"),
                target_dir=str(scratch),
            )
    except SystemExit:
        errors = [line for line in said.getvalue().splitlines() if ": error:" in line]
        raise Failed(f"mypyc failed: {(errors or said.getvalue().splitlines() or ['no reason given'])[0]}") from None
    # The first is all code; then there is one for each module, which only makes it known to Python by its name.
    whole, *shims = made
    runtime = {str(scratch / name) for name in RUNTIME_C_FILES}
    bodies = sorted((path for path in whole.sources if path not in runtime), key=os.path.getsize, reverse=True)
    groups: list[list[str]] = [[] for _ in range(min(len(bodies), PARTS_A_CORE * _cores()))]
    sizes = [0] * len(groups)
    for body in bodies:
        smallest = sizes.index(min(sizes))
        groups[smallest].append(body)
        sizes[smallest] += os.path.getsize(body)
    groups.sort(key=lambda group: -sum(map(os.path.getsize, group)))
    parts = []
    for number, group in enumerate([*groups, sorted(runtime)]):
        part = scratch / f"part{number}.c"
        part.write_text("".join(f'#include "{path}"\n' for path in group))
        parts.append(part)
    part = scratch / "names.c"
    # Each defines a second function, of the same name in all, for a tool that is not used here.
    part.write_text(
        "".join(
            f'#define PyInit___init__ unused_{number}\n#include "{shim.sources[0]}"\n#undef PyInit___init__\n'
            for number, shim in enumerate(shims)
        )
    )
    return [*parts, part], [str(scratch), include_dir(), sysconfig.get_path("include")]


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
