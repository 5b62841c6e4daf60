"""Which modules are compiled, and that no source which the compiled code rests on is forgotten."""

import subprocess
import sys
from pathlib import Path

import pytest

from compile import rooms
from egress_gateway.compiled import SOURCES

_IMPORT_ALL = """
import importlib, sys
for name in sys.argv[1:]:
    importlib.import_module(name)
for name, module in sys.modules.items():
    if name.startswith("egress_gateway"):
        print(module.__file__)
"""


def test_whatever_the_compiled_modules_import_of_the_package_is_relied_on() -> None:
    done = subprocess.run(
        [sys.executable, "-P", "-c", _IMPORT_ALL, *rooms.modules(SOURCES)], capture_output=True, text=True, check=True
    )
    imported = {Path(line).relative_to(SOURCES) for line in done.stdout.splitlines()}
    assert len(imported) > 70
    # Packages that hold nothing are imported without being named.
    empty = {path for path in imported if path.name == "__init__.py"}
    assert imported - empty <= {*rooms.relied_on(SOURCES)}


def test_what_is_interpreted_is_there() -> None:
    assert all((SOURCES / "egress_gateway" / name).is_file() for name in rooms.INTERPRETED)


@pytest.mark.parametrize(
    "text",
    [
        "from egress_gateway.dns.answer import Answer",
        "from egress_gateway.dns import answer",
        "import egress_gateway.dns.answer",
        "from ..dns.answer import Answer",
        "from ..dns import answer",
        "from .. import dns",
        "def late():\n    from ..dns.answer import Answer",
    ],
)
def test_an_import_however_it_is_written(tmp_path: Path, text: str) -> None:
    """Of a room that is not compiled: what is compiled is relied on anyway."""
    package = tmp_path / "egress_gateway"
    for name in ("dns/answer.py", *rooms.FILES):
        (package / name).parent.mkdir(parents=True, exist_ok=True)
        (package / name).touch()
    (package / "dns/__init__.py").write_text("from . import answer")
    (package / "policy").mkdir()
    one = package / "policy/one.py"
    one.touch()
    assert Path("egress_gateway/dns/answer.py") not in rooms.relied_on(tmp_path)
    one.write_text(text)
    assert Path("egress_gateway/dns/answer.py") in rooms.relied_on(tmp_path)
