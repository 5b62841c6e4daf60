"""A client that nobody reads from is made to wait, and goes on when somebody does."""

import asyncio

from egress_gateway.hooks.inspect.pace import MOST, Pace, PacedReader

PIECE = 65_536


class Endless:
    """A reader that always has something."""

    def __init__(self) -> None:
        self.given = 0

    async def read(self, n: int = -1, /) -> bytes:
        self.given += PIECE
        return bytes(PIECE)


async def read_for_a_while(reader: PacedReader) -> None:
    try:
        async with asyncio.timeout(0.05):
            for _ in range(1000):
                await reader.read(PIECE)
    except TimeoutError:
        pass


async def test_everything_is_read_while_nobody_stalls() -> None:
    source = Endless()
    await read_for_a_while(PacedReader(source, Pace()))
    assert source.given == 1000 * PIECE


async def test_a_stalled_client_is_read_only_so_far() -> None:
    source, pace = Endless(), Pace()
    pace.stall("one")
    pace.stall("two")
    reader = PacedReader(source, pace)
    await read_for_a_while(reader)
    assert source.given == MOST
    pace.stall("one", False)
    await read_for_a_while(reader)
    assert source.given == MOST


async def test_it_goes_on_when_the_last_one_has_let_go() -> None:
    source, pace = Endless(), Pace()
    pace.stall("one")
    reader = PacedReader(source, pace)
    await read_for_a_while(reader)
    waiting = asyncio.create_task(reader.read(PIECE))
    await asyncio.sleep(0)
    assert not waiting.done()
    pace.stall("one", False)
    assert len(await waiting) == PIECE
