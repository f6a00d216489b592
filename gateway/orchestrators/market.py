"""Everybody who offers one model, kept so that the best is found without looking at all of them.

The requests of a gateway come in few shapes: sizes, steps and price caps that repeat. For each shape
there is a heap of scores. A change of an orchestrator is pushed beside its older entries, and
what has become untrue is thrown away when it comes to the top; so the top that is left is always
the minimum that `selection.rank` finds by looking at everybody.
"""

from collections.abc import Callable, Collection, Iterable, Iterator
from heapq import heapify, heappop, heappush
from typing import Final

from gateway.orchestrators.selection import (
    Candidate,
    Need,
    Policy,
    Prospect,
    candidate_of,
    score_of,
)
from network.units import ModelId

#: Shapes that are remembered, the latest used first.
_MOST_SHAPES: Final = 16
#: A heap may have so many outdated entries beside one for each orchestrator, and as many again.
_SLACK: Final = 64


class _Shape:
    """The order for requests of one size, number of steps and price cap."""

    __slots__ = ("_heap", "_lapsed", "_need", "_policy", "_resting")

    def __init__(self, need: Need, policy: Policy, prospects: Collection[Prospect]) -> None:
        self._need = need
        self._policy = policy
        self._heap: list[tuple[int, str]] = []
        #: Those who are paused, by the end of their pause (monotonic seconds).
        self._resting: list[tuple[float, int, str]] = []
        #: Those whose offer was too old when they came to the top.
        self._lapsed: set[str] = set()
        self.fill(prospects)

    def __len__(self) -> int:
        return len(self._heap) + len(self._resting)

    def fill(self, prospects: Collection[Prospect]) -> None:
        """Begin anew."""
        self._heap = [
            (score_of(one, self._need, self._policy), one.uri)
            for one in prospects
            if self._may(one)
        ]
        heapify(self._heap)
        self._resting.clear()
        self._lapsed.clear()

    def put(self, old: Prospect | None, new: Prospect) -> None:
        """Take in a change; nothing is done where the entry there is still holds."""
        if not self._may(new):
            return
        score = score_of(new, self._need, self._policy)
        if (
            old is None
            or not self._may(old)
            or old.suspended_until != new.suspended_until
            or new.uri in self._lapsed
            or score != score_of(old, self._need, self._policy)
        ):
            heappush(self._heap, (score, new.uri))
            self._lapsed.discard(new.uri)

    def best(
        self, known: dict[str, Prospect], now: float, tried: Collection[str]
    ) -> Candidate | None:
        """`now` never goes back."""
        heap, resting = self._heap, self._resting
        while resting and resting[0][0] <= now:
            _, score, uri = heappop(resting)
            heappush(heap, (score, uri))
        aside: list[tuple[int, str]] = []
        found: Candidate | None = None
        while heap:
            score, uri = heap[0]
            one = known.get(uri)
            if (
                one is None
                or not self._may(one)
                or score_of(one, self._need, self._policy) != score
            ):
                heappop(heap)
            elif uri in tried:
                aside.append(heappop(heap))
            elif one.fresh_until < now:
                heappop(heap)
                self._lapsed.add(uri)
            elif one.suspended_until > now:
                heappop(heap)
                heappush(resting, (one.suspended_until, score, uri))
            else:
                found = candidate_of(score, one, self._need)
                break
        for entry in aside:
            heappush(heap, entry)
        return found

    def _may(self, one: Prospect) -> bool:
        """Eligible but for time and for what this request tried already."""
        if one.barred is not None or one.free <= 0:
            return False
        cap = self._need.price_cap
        return cap is None or (
            one.price_numerator * cap.denominator <= cap.numerator * one.price_denominator
        )


class Market:
    """The prospects of one model, by URI."""

    def __init__(self, policy: Policy) -> None:
        self._policy = policy
        self._known: dict[str, Prospect] = {}
        self._shapes: dict[tuple[int, int, int, object], _Shape] = {}

    def __len__(self) -> int:
        return len(self._known)

    def __iter__(self) -> Iterator[str]:
        return iter(self._known)

    def get(self, uri: str) -> Prospect | None:
        return self._known.get(uri)

    def prospects(self) -> Collection[Prospect]:
        return self._known.values()

    def put(self, prospect: Prospect) -> None:
        """Take in what is new of an orchestrator."""
        old = self._known.get(prospect.uri)
        self._known[prospect.uri] = prospect
        most = 2 * len(self._known) + _SLACK
        for shape in self._shapes.values():
            shape.put(old, prospect)
            if len(shape) > most:
                shape.fill(self._known.values())

    def recount(self, uri: str, free: int) -> None:
        """Nothing but the free places changed, twice in each request."""
        old = self._known.get(uri)
        if old is None:
            return
        new = self._known[uri] = old.with_free(free)
        if old.free <= 0 < free:
            for shape in self._shapes.values():
                shape.put(old, new)

    def entries(self) -> int:
        """How many are kept for the orders of all shapes; bounded by a multiple of `len`."""
        return sum(map(len, self._shapes.values()))

    def remove(self, uri: str) -> bool:
        """Whether it was there."""
        return self._known.pop(uri, None) is not None

    def best(self, need: Need, now: float, tried: Collection[str] = ()) -> Candidate | None:
        """As `selection.rank(...).best`. `now` is monotonic seconds and never goes back."""
        key = (int(need.pixels), need.images, need.steps, need.price_cap)
        shape = self._shapes.pop(key, None)
        if shape is None:
            shape = _Shape(need, self._policy, self._known.values())
            if len(self._shapes) >= _MOST_SHAPES:
                del self._shapes[next(iter(self._shapes))]
        self._shapes[key] = shape
        return shape.best(self._known, now, tried)


class Markets:
    """The market of every model that somebody asked for and somebody offers."""

    def __init__(self, policy: Policy) -> None:
        self._policy = policy
        self._markets: dict[ModelId, Market] = {}

    def of(self, model_id: ModelId) -> Market | None:
        return self._markets.get(model_id)

    def open(self, model_id: ModelId, prospects: Iterable[Prospect]) -> Market | None:
        """None where there is nobody: whatever clients make up is not remembered."""
        market = Market(self._policy)
        for prospect in prospects:
            market.put(prospect)
        if not market:
            return None
        self._markets[model_id] = market
        return market

    def recount(self, uri: str, model_id: ModelId, free: int) -> None:
        market = self._markets.get(model_id)
        if market is not None:
            market.recount(uri, free)

    def reassess(self, uri: str, prospect: Callable[[ModelId], Prospect | None]) -> None:
        """Take in what one orchestrator is to each market now."""
        for model_id in list(self._markets):
            found = prospect(model_id)
            if found is None:
                self._withdraw(uri, model_id)
            else:
                self._markets[model_id].put(found)

    def dismiss(self, uri: str) -> None:
        for model_id in list(self._markets):
            self._withdraw(uri, model_id)

    def __len__(self) -> int:
        return len(self._markets)

    def _withdraw(self, uri: str, model_id: ModelId) -> None:
        market = self._markets[model_id]
        if market.remove(uri) and not market:
            del self._markets[model_id]
