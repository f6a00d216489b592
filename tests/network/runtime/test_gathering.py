"""Lines that are gathered lose nothing but time."""

import asyncio
import io
from typing import TextIO, cast

import pytest
import structlog
from typing_extensions import override

from network.runtime import gathering
from network.runtime.gathering import GatheringStream
from network.runtime.log import configure
from tests.network.runtime.test_log import _logging_as_before, last

__all__ = ["_logging_as_before"]


class CountedWrites(io.StringIO):
    """Tells how often it was written to."""

    def __init__(self) -> None:
        super().__init__()
        self.writes = 0

    @override
    def write(self, text: str, /) -> int:
        self.writes += 1
        return super().write(text)


async def test_lines_of_a_moment_are_one_write_in_their_order() -> None:
    out = CountedWrites()
    stream = GatheringStream(out)
    with stream.gathering():
        for number in range(50):
            stream.write(f"{number}\n")
            stream.flush()
        assert not out.writes
        async with asyncio.timeout(10):
            while not out.getvalue():  # noqa: ASYNC110  a timer's end is no event
                await asyncio.sleep(0.005)
        assert out.getvalue() == "".join(f"{number}\n" for number in range(50))
        stream.write("next\n")
    assert (out.writes, out.getvalue().splitlines()[-1]) == (2, "next")


async def test_the_end_writes_what_was_gathered_and_later_lines_go_at_once(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(gathering, "GATHER_SECONDS", 3600)
    out = io.StringIO()
    stream = GatheringStream(out)
    stream.write("before\n")
    assert out.getvalue() == "before\n"
    with stream.gathering():
        stream.write("meanwhile\n")
        assert out.getvalue() == "before\n"
    assert out.getvalue() == "before\nmeanwhile\n"
    stream.write("after\n")
    assert out.getvalue().endswith("after\n")


async def test_another_thread_waits_for_nothing_and_overtakes_nobody(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(gathering, "GATHER_SECONDS", 3600)
    out = io.StringIO()
    stream = GatheringStream(out)
    with stream.gathering():
        stream.write("loop\n")
        await asyncio.to_thread(stream.write, "thread\n")
        assert out.getvalue() == "loop\nthread\n"


async def test_loggers_write_through_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gathering, "GATHER_SECONDS", 3600)
    out = io.StringIO()
    stream = GatheringStream(out)
    configure("info", "auto", cast("TextIO", stream))
    with stream.gathering():
        structlog.get_logger().info("job done", fee=5)
        assert not out.getvalue()
    assert last(out)["event"] == "job done"
