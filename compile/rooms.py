"""What is compiled, and which sources that rests on."""

import ast
from collections.abc import Iterator
from pathlib import Path

ROOMS = ("policy", "gate", "relay")
"""Every module in them, but those in `INTERPRETED`."""
FILES = (
    "hooks/guest.py",
    "observe/access_line.py",
    "observe/access_log.py",
    "observe/arena.py",
    "observe/families.py",
    "observe/fanout.py",
    "observe/metrics.py",
    "observe/observation.py",
    "observe/series.py",
    "observe/terminal.py",
)
"""Whatever else runs for every request, and whoever derives from a class that is compiled: it must be compiled too."""
INTERPRETED = ("relay/layer.py",)
"""It derives from a class of mitmproxy's, which mypyc does not do."""


def modules(sources: Path) -> dict[str, Path]:
    """The modules to compile, by name; paths are below `sources`."""
    package = sources / "egress_gateway"
    found = [path for room in ROOMS for path in sorted((package / room).glob("*.py")) if path.stem != "__init__"]
    found += [package / name for name in FILES]
    paths = [path.relative_to(sources) for path in found if path.relative_to(package).as_posix() not in INTERPRETED]
    return {_name(path): path for path in paths}


def relied_on(sources: Path) -> list[Path]:
    """The modules to compile, and all that they import of the package, and that these import."""
    found = list(modules(sources).values())
    for path in found:  # which grows meanwhile
        found += [each for each in dict.fromkeys(_imports(sources, path)) if each not in found]
    return sorted(found)


def _imports(sources: Path, path: Path) -> Iterator[Path]:
    package = path.parent.parts
    for node in ast.walk(ast.parse((sources / path).read_bytes())):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            above = package[: len(package) + 1 - node.level] if node.level else ()
            module = ".".join((*above, *filter(None, [node.module])))
            names = [module, *(f"{module}.{alias.name}" for alias in node.names)]
        else:
            continue
        for name in names:
            whole = Path(*name.split("."))
            for each in (whole.with_suffix(".py"), whole / "__init__.py"):
                if whole.parts[0] == "egress_gateway" and (sources / each).is_file():
                    yield each


def _name(path: Path) -> str:
    return ".".join(path.with_suffix("").parts)
