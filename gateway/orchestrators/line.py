"""Requests waiting for a free place, served in the order in which they arrived."""

import asyncio
from bisect import bisect_left, insort
from collections.abc import Callable, Hashable
from dataclasses import dataclass, field
from typing import Generic, TypeVar

T = TypeVar("T")


class LineFull(Exception):  # noqa: N818  an outcome, not an error
    """As many wait already as may wait."""


@dataclass(order=True, slots=True)
class _Turn(Generic[T]):
    arrival: int
    attempt: Callable[[], T | None] = field(compare=False)
    group: Hashable = field(compare=False)
    place: asyncio.Future[T] = field(compare=False)


class Line(Generic[T]):
    """`attempt` is a request's try for a place: it takes one, answers None, or raises to give up."""

    def __init__(self, most: int, undo: Callable[[T], None]) -> None:
        """`undo` gives a place back that was taken for somebody who had just left."""
        self._most = most
        self._undo = undo
        self._turns: list[_Turn[T]] = []

    def __len__(self) -> int:
        return len(self._turns)

    def position(self, arrival: int) -> int:
        """Place in the line, the first being 1."""
        return bisect_left(self._turns, arrival, key=lambda turn: turn.arrival) + 1

    async def wait(
        self, arrival: int, attempt: Callable[[], T | None], seconds: float, group: Hashable = None
    ) -> T:
        """Wait for a place behind those who arrived earlier.

        Requests of one `group` find a place or none alike; None stands for no group.
        Raises LineFull, TimeoutError, and whatever `attempt` raises.
        """
        if len(self._turns) >= self._most:
            raise LineFull
        place: asyncio.Future[T] = asyncio.get_running_loop().create_future()
        turn = _Turn(arrival, attempt, group, place)
        insort(self._turns, turn)
        try:
            self.advance()
            # Not wait_for: a place that is given in the moment of the time-out must not be lost.
            await asyncio.wait((place,), timeout=seconds)
        except asyncio.CancelledError:
            if place.done() and place.exception() is None:
                self._undo(place.result())
            raise
        finally:
            if not place.done():
                self._turns.remove(turn)
        if not place.done():
            place.cancel()
            raise TimeoutError
        return place.result()

    def advance(self) -> None:
        """Let everybody try, the earliest first."""
        hopeless: set[Hashable] = set()
        left: list[_Turn[T]] = []
        for turn in self._turns:
            if turn.group in hopeless or not _try(turn):
                left.append(turn)
                if turn.group is not None:
                    hopeless.add(turn.group)
        self._turns = left


def _try(turn: _Turn[T]) -> bool:
    """Whether the turn is over."""
    try:
        place = turn.attempt()
    except Exception as error:  # noqa: BLE001  it is the waiting request's, not ours
        turn.place.set_exception(error)
        return True
    if place is None:
        return False
    turn.place.set_result(place)
    return True
