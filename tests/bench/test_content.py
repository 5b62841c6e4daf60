"""Bytes that were moved are compared: with content that begins again where it ends."""

import pytest
from bench.clients.upload_origin import matches

_CONTENT = b"abcdefgh"

CASES = {
    "the beginning": (b"abc", 0, True),
    "the middle": (b"def", 3, True),
    "over the end": (b"ghab", 6, True),
    "more than all of it": (b"habcdefghab", 7, True),
    "the second time": (b"cde", 10, True),
    "nothing": (b"", 5, True),
    "one byte is another": (b"abd", 0, False),
    "one byte was left out": (b"def", 2, False),
    "over the end, wrongly": (b"ghac", 6, False),
}


@pytest.mark.parametrize(("piece", "at", "same"), CASES.values(), ids=CASES)
def test_a_piece_is_compared(piece: bytes, at: int, same: bool) -> None:
    assert matches(piece, _CONTENT, at) is same
