"""Equal requests that are under way: one run for all of them. Pure.

A flight is one run. Who begins it leads it, and buys it; who comes while it is under way waits for it.
It goes on for as long as anybody waits, and is stopped with the last one. A run that is `bound` is its
leader's alone to end: its answer is written down together with what it costs, so the two must not part.
"""

from dataclasses import dataclass, field
from fractions import Fraction
from typing import Generic, TypeVar

from gateway.repeats.model import charge_of
from network.units import Wei

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Member:
    """One request of a flight; its id is the journal's."""

    request_id: str
    key_id: str


@dataclass(slots=True, eq=False)
class Flight(Generic[T]):
    """One run. `run` is the caller's own handle on it."""

    digest: bytes
    leader: Member
    is_bound: bool
    run: T
    #: In the order of their arrival, the leader among them.
    waiting: dict[str, Member] = field(default_factory=dict)
    #: Whether the images are there.
    is_landed: bool = False
    #: Of the request that is charged nothing, for its key has paid for the run already.
    excused: str = ""
    _is_unclaimed: bool = False

    @property
    def is_led(self) -> bool:
        """Whether the one who began it waits for it."""
        return self.leader.request_id in self.waiting

    def land(self) -> None:
        """The images are there, and bought by the leader, also where it left while others waited.

        Then the first with the same key, of those who wait and those who still come, has what that key
        paid for, and is charged nothing: no key pays for more answers than it got.
        """
        self.is_landed = True
        self._is_unclaimed = not self.is_led
        for member in self.waiting.values():
            self.excuse(member)

    def excuse(self, member: Member) -> None:
        """It waits for what its key has paid for, unless another one does."""
        if self._is_unclaimed and not self.excused and member.key_id == self.leader.key_id:
            self.excused = member.request_id

    def charge(self, member: Member, fee: Wei, share: Fraction) -> Wei:
        """What one who gets the images is charged, of the `fee` that was paid for them."""
        if member == self.leader:
            return fee
        if member.request_id == self.excused:
            return Wei(0)
        return charge_of(fee, share)


class Flights(Generic[T]):
    """All that can still be joined."""

    def __init__(self) -> None:
        self._flights: dict[bytes, Flight[T]] = {}
        #: By request, wherever it waits.
        self._of: dict[str, Flight[T]] = {}

    def __len__(self) -> int:
        return len(self._flights)

    @property
    def waiting(self) -> int:
        """Requests that wait for a run."""
        return len(self._of)

    def find(self, digest: bytes) -> Flight[T] | None:
        return self._flights.get(digest)

    def of(self, request_id: str) -> Flight[T] | None:
        """The flight that a request waits for."""
        return self._of.get(request_id)

    def begin(self, digest: bytes, leader: Member, run: T, *, is_bound: bool = False) -> Flight[T]:
        """A new run. Raises ValueError where one of this digest can be joined."""
        if digest in self._flights:
            raise ValueError("an equal request is under way")
        flight = Flight(digest, leader, is_bound, run)
        self._flights[digest] = flight
        self.join(flight, leader)
        return flight

    def join(self, flight: Flight[T], member: Member) -> None:
        """Wait for it."""
        flight.waiting[member.request_id] = member
        flight.excuse(member)
        self._of[member.request_id] = flight

    def leave(self, flight: Flight[T], member: Member) -> bool:
        """Wait no longer, answered or not. Answers whether the run is to be stopped."""
        del flight.waiting[member.request_id]
        del self._of[member.request_id]
        if flight.is_landed:
            return False
        must_stop = not flight.waiting or (flight.is_bound and member == flight.leader)
        if must_stop:
            # Whoever comes from now on would be let down.
            self.close(flight)
        return must_stop

    def close(self, flight: Flight[T]) -> None:
        """Nobody joins it from now on. May be repeated."""
        if self._flights.get(flight.digest) is flight:
            del self._flights[flight.digest]

    def validate(self) -> None:
        """Raise AssertionError when the books do not add up (tests)."""
        for flight in self._flights.values():
            if not flight.waiting and not flight.is_landed:
                raise AssertionError("a run for nobody can be joined")
        for request_id, flight in self._of.items():
            if request_id not in flight.waiting:
                raise AssertionError(f"{request_id} waits for a flight that does not know it")
