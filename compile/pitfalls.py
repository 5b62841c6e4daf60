"""What mypy accepts and mypyc compiles wrongly: it is looked for before anything is compiled.

A coroutine that mypyc has made has no exception of its own that it is handling; there is one for the whole thread. So
`await` while one is handled lets others run as if they handled it, and at the end of a `finally` with an `await` in it
whatever is being handled then, by whomever, is raised again.

mypyc gives a name one type in a function. mypy lets `except` give it another one each time, so that the second clause
of `except A as error: … except B as error:` would raise a TypeError when it is reached, in place of what it is to do.
"""

import ast
from collections.abc import Iterable, Iterator
from pathlib import Path

_FUNCTIONS = (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda)


def find(sources: Path, modules: Iterable[Path]) -> Iterator[str]:
    """A line for each, with its place."""
    for path in modules:
        for node in ast.walk(ast.parse((sources / path).read_bytes())):
            if isinstance(node, (ast.Try, ast.TryStar)):
                yield from (f"{path}:{line}: `await` in {where}" for line, where in _waiting(node))
            if isinstance(node, (ast.Module, ast.ClassDef, *_FUNCTIONS)):
                yield from (f"{path}:{line}: `{name}` was another exception above" for line, name in _changing(node))


def _waiting(node: ast.Try | ast.TryStar) -> Iterator[tuple[int, str]]:
    for where, body in [("`finally`", node.finalbody), *(("`except`", handler.body) for handler in node.handlers)]:
        for statement in body:
            for each in ast.walk(statement):
                if isinstance(each, (ast.Await, ast.AsyncFor, ast.AsyncWith)):
                    yield each.lineno, where


def _changing(function: ast.AST) -> Iterator[tuple[int, str]]:
    types: dict[str, str] = {}
    for handler in sorted(_handlers(function), key=lambda handler: handler.lineno):
        if handler.name and handler.type:
            caught = ast.unparse(handler.type)
            if types.setdefault(handler.name, caught) != caught:
                yield handler.lineno, handler.name


def _handlers(node: ast.AST) -> Iterator[ast.ExceptHandler]:
    """Those of a function itself, and not of functions in it."""
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.ExceptHandler):
            yield child
        if not isinstance(child, (ast.ClassDef, *_FUNCTIONS)):
            yield from _handlers(child)
