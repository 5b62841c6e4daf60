"""What would be compiled wrongly is found, and there is none of it."""

from pathlib import Path

import pytest

from compile import pitfalls, rooms
from egress_gateway.compiled import SOURCES


def test_there_is_none() -> None:
    """Also where nothing is compiled: it is found before it is a surprise."""
    assert [*pitfalls.find(SOURCES, rooms.modules(SOURCES).values())] == []


TWO = """
{head}
    try:
        act()
    except {first}:
        pass
    except {second}:
        pass
"""


@pytest.mark.parametrize("head", ["def act():", "async def act():", "class It:", "if True:"])
@pytest.mark.parametrize(
    ("first", "second", "wrong"),
    [
        ("KeyError as error", "OSError as error", True),
        ("KeyError as error", "(OSError, KeyError) as error", True),
        ("KeyError as error", "OSError as another", False),
        ("KeyError as error", "KeyError as error", False),
        ("KeyError", "OSError", False),
        ("KeyError as error", "OSError", False),
    ],
)
def test_a_name_for_two_exceptions(tmp_path: Path, head: str, first: str, second: str, wrong: bool) -> None:
    (tmp_path / "one.py").write_text(TWO.format(head=head, first=first, second=second))
    found = [*pitfalls.find(tmp_path, [Path("one.py")])]
    assert found == (["one.py:7: `error` was another exception above"] if wrong else [])


def test_functions_have_names_of_their_own(tmp_path: Path) -> None:
    inner = TWO.format(head="def act():", first="KeyError as error", second="KeyError as error")
    outer = "try:\n    pass\nexcept OSError as error:\n    pass\n" + inner
    (tmp_path / "one.py").write_text(outer)
    assert [*pitfalls.find(tmp_path, [Path("one.py")])] == []


WAITING = """
async def act():
    try:
        {body}
    except OSError:
        {handler}
    finally:
        {final}
"""


@pytest.mark.parametrize(
    ("body", "handler", "final", "found"),
    [
        ("await act()", "pass", "pass", []),
        ("pass", "await act()", "pass", ["one.py:6: `await` in `except`"]),
        ("pass", "pass", "await act()", ["one.py:8: `await` in `finally`"]),
        ("pass", "pass", "async with act(): pass", ["one.py:8: `await` in `finally`"]),
        ("pass", "return (await act()) + 1", "pass", ["one.py:6: `await` in `except`"]),
    ],
)
def test_a_wait_while_an_exception_is_handled(
    tmp_path: Path, body: str, handler: str, final: str, found: list[str]
) -> None:
    (tmp_path / "one.py").write_text(WAITING.format(body=body, handler=handler, final=final))
    assert [*pitfalls.find(tmp_path, [Path("one.py")])] == found
