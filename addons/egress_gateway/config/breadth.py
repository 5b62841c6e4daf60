"""How broad a wildcard is: whether people who have nothing to do with each other own names that it matches.

Held against the public suffix list that comes with `publicsuffix2`; nothing is downloaded.
"""

from __future__ import annotations

from functools import cache, lru_cache

# Listed to keep the cookies of its own services apart; nobody but Google has names below it.
_ONE_OWNER = frozenset({"googleapis.com"})


class _Suffixes:
    def __init__(self) -> None:
        self.suffixes = frozenset(rule.removeprefix("*.") for rule in listed() if rule[0] != "!") - _ONE_OWNER
        # To ask whether any suffix ends in a text, one search in one string beats thousands of comparisons;
        # the shortest comes first, as the best example.
        self.joined = "\n".join(sorted(self.suffixes, key=len)) + "\n"


def listed() -> list[str]:
    """The rules of the list, as A-labels.

    `PublicSuffixList` would build a tree of them as well, which costs a fifth of a second and is not needed here.
    """
    # Imported here: it is slow to import, and most rule files have no wildcard to hold against it.
    from publicsuffix2 import PSL_FILE

    with open(PSL_FILE, encoding="utf-8") as opened:
        lines = [line.strip() for line in opened]
    rules = [line for line in lines if line and not line.startswith("//")]
    return [rule if rule.isascii() else rule.encode("idna").decode("ascii") for rule in rules]


@cache
def _suffixes() -> _Suffixes:
    return _Suffixes()


@lru_cache(maxsize=8192)
def covers_public_suffix(suffix: str) -> str | None:
    """What `*` followed by `suffix` covers that belongs to many: a public suffix, `everything`, or None for nothing.

    `*.com`, `*.co.uk` and `*.github.io` lie over a public suffix; `*o.uk` does because it matches all that ends in
    `co.uk`. `*.internal` does not: a name that is not in the list is somebody's own.
    """
    if suffix in ("", "."):
        return "everything"
    if suffix.startswith("."):
        name = suffix[1:]
        return name if name in _suffixes().suffixes else None
    joined = _suffixes().joined
    found = joined.find(suffix + "\n")
    if found < 0:
        return None
    return joined[joined.rfind("\n", 0, found) + 1 : found + len(suffix)]
