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
    ("text", "found"),
    {
        "from egress_gateway.policy.two import TWO": "policy/two.py",
        "from egress_gateway.policy import two": "policy/two.py",
        "import egress_gateway.policy.two": "policy/two.py",
        "from .two import TWO": "policy/two.py",
        "from . import two": "policy/two.py",
        "def late():\n    from .two import TWO": "policy/two.py",
        "from egress_gateway.dns.answer import Answer": "dns/answer.py",
    }.items(),
)
def test_an_import_however_it_is_written(tmp_path: Path, text: str, found: str) -> None:
    package = tmp_path / "egress_gateway"
    for name in ("policy/two.py", "dns/answer.py", *rooms.FILES):
        (package / name).parent.mkdir(parents=True, exist_ok=True)
        (package / name).touch()
    (package / "dns/answer.py").write_text("")
    assert Path("egress_gateway/dns/answer.py") not in rooms.relied_on(tmp_path)
    (package / "policy/one.py").write_text(text)
    (package / "policy/two.py").unlink() if "dns" in found else None
    assert Path("egress_gateway", found) in rooms.relied_on(tmp_path)
