"""Those who wait are served in order, and nobody's place is lost."""

import asyncio
from collections.abc import Callable

import pytest

from gateway.orchestrators.line import Line, LineFull


class Places:
    """Places that requests take; those given back are counted."""

    def __init__(self, free: int = 0) -> None:
        self.free = free
        self.tries: list[str] = []
        self.line: Line[str] = Line(100, self.undo)

    def undo(self, _name: str) -> None:
        self.free += 1

    def attempt(self, name: str) -> Callable[[], str | None]:
        def take() -> str | None:
            self.tries.append(name)
            if not self.free:
                return None
            self.free -= 1
            return name

        return take

    def wait(self, arrival: int, name: str, group: str | None = None) -> asyncio.Task[str]:
        return asyncio.create_task(self.line.wait(arrival, self.attempt(name), 1.0, group))


async def test_a_free_place_is_taken_at_once() -> None:
    places = Places(1)
    assert await places.wait(1, "a") == "a"
    assert len(places.line) == 0


async def test_places_go_to_the_earliest_arrival_not_to_the_first_in_line() -> None:
    places = Places()
    late, early = places.wait(2, "late"), places.wait(1, "early")
    await asyncio.sleep(0)
    assert (places.line.position(1), places.line.position(2)) == (1, 2)
    places.free = 1
    places.line.advance()
    assert await early == "early"
    assert not late.done()
    places.free = 1
    places.line.advance()
    assert await late == "late"


async def test_one_who_cannot_be_served_does_not_stop_the_others() -> None:
    places = Places()
    picky = asyncio.create_task(places.line.wait(1, lambda: None, 1.0))
    easy = places.wait(2, "easy")
    await asyncio.sleep(0)
    places.free = 1
    places.line.advance()
    assert await easy == "easy"
    picky.cancel()
    with pytest.raises(asyncio.CancelledError):
        await picky
    assert len(places.line) == 0


async def test_of_a_group_only_the_first_tries_in_vain() -> None:
    places = Places()
    waiting = [places.wait(number, f"w{number}", "same") for number in range(50)]
    await asyncio.sleep(0)
    places.tries.clear()
    places.line.advance()
    assert places.tries == ["w0"]
    places.free = 50
    places.line.advance()
    assert await asyncio.gather(*waiting) == [f"w{number}" for number in range(50)]


async def test_a_place_given_to_one_who_just_left_is_given_back() -> None:
    places = Places()
    task = places.wait(1, "gone")
    await asyncio.sleep(0)
    places.free = 1
    places.line.advance()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert places.free == 1


async def test_waiting_ends_with_the_time_and_leaves_the_line() -> None:
    places = Places()
    with pytest.raises(TimeoutError):
        await places.line.wait(1, places.attempt("a"), 0.01)
    assert len(places.line) == 0


async def test_a_full_line_takes_nobody() -> None:
    line: Line[str] = Line(0, lambda _place: None)
    with pytest.raises(LineFull):
        await line.wait(1, lambda: "place", 1.0)


async def test_a_reason_to_give_up_reaches_the_one_it_concerns() -> None:
    places = Places()

    def give_up() -> str | None:
        if places.free:
            raise LookupError
        return None

    hopeless = asyncio.create_task(places.line.wait(1, give_up, 1.0))
    other = places.wait(2, "other")
    await asyncio.sleep(0)
    places.free = 1
    places.line.advance()
    with pytest.raises(LookupError):
        await hopeless
    assert await other == "other"
