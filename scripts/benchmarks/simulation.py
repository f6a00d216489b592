"""A market of simulated orchestrators and a gateway that chooses among them, in simulated time.

Each orchestrator has a price that flaps, places that other gateways take, a pace, and what it advertises: the
places it had when it was last asked. One in a hundred is ten times as slow as the others and does not say
so, one in two hundred fails every job after two seconds. Nothing here waits: a second is a number.
"""

import heapq
import itertools
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from enum import Enum
from fractions import Fraction
from functools import partial
from random import Random
from typing import Final

from gateway.orchestrators.market import Market
from gateway.orchestrators.pace import Beliefs
from gateway.orchestrators.selection import FEMTOSECONDS, Need, Policy, Prospect
from gateway.orchestrators.standing import (
    Delivery,
    Fault,
    Pausing,
    Standing,
    after_failure,
    after_success,
    newcomer,
)
from network.units import ModelId, Pixels

MODEL: Final = ModelId("m")
#: Wei that a second is worth: about what 512 x 512 pixels cost here.
TIME_VALUE: Final = Fraction(500_000_000_000)
NEED: Final = Need(MODEL, Pixels(512 * 512), 20, None)
_REFRESH: Final = 5.0
_SLOW: Final = 0.01
_FAILING: Final = 0.005
_FLAPS: Final = 0.05
_REFUSAL: Final = 0.03
_FAILURE: Final = 2.0
_MOST_ATTEMPTS: Final = 10


@dataclass(slots=True)
class Orchestrator:
    """The truth about one; `pace` in seconds for a job of `NEED`."""

    uri: str
    price: Fraction
    places: int
    pace: float
    fails: bool
    ours: int = 0
    others: int = 0
    #: Free places as advertised, less our jobs since.
    seen: int = 0
    standing: Standing = field(default_factory=newcomer)
    #: Of one job, time included, in wei.
    cost: float = 0.0

    def __post_init__(self) -> None:
        self.ask(self.price)

    @property
    def free(self) -> int:
        return self.places - self.ours - self.others

    @property
    def offered(self) -> int:
        """Free places as we know of them, and no more than it has earned."""
        allowance = self.standing.allowance
        return self.seen if allowance is None else min(self.seen, allowance - self.ours)

    def ask(self, price: Fraction) -> None:
        """Change the price, in wei per pixel."""
        self.price = price
        self.cost = float(price * NEED.pixels) + float(TIME_VALUE) * self.pace


class Paces(Enum):
    """What is known of the time that those take who were not measured."""

    #: The same constant of all.
    CONSTANT = "constant"
    #: What those who were measured tell.
    LEARNED = "learned"
    #: Everybody's true pace, from the start.
    KNOWN = "known"


@dataclass(frozen=True, slots=True)
class World:
    """What the gateway knows, and how well others behave."""

    paces: Paces = Paces.LEARNED
    #: Prices and free places are known as soon as they change.
    is_fresh: bool = False
    #: Nobody fails.
    is_sound: bool = False
    #: Newcomers may have all their places filled at once.
    is_trusting: bool = False


@dataclass(frozen=True, slots=True)
class Outcome:
    """Figures of one strategy over all its requests."""

    #: What requests cost above the best truly free choice, time included; mean, in parts of the latter.
    regret: float
    p50_seconds: float
    p99_seconds: float
    failed: int
    refusals: int


#: Chooses among the known prospects for a request; what it must not choose again is given.
Strategy = Callable[["Simulation", set[str]], str | None]


class Simulation:
    """One run; `randomness` decides everything that is not the strategy's."""

    def __init__(
        self,
        count: int,
        strategy: Strategy,
        randomness: Random,
        world: World = World(),
    ) -> None:
        self._random = randomness
        self._world = world
        self._strategy = strategy
        self.orchestrators = {one.uri: one for one in self._make(count)}
        self.uris = list(self.orchestrators)
        self.market = Market(Policy(time_value=TIME_VALUE))
        self.beliefs = Beliefs(Policy().unmeasured_pace, Policy().cold_load)
        self.turn = 0
        self.now = 0.0
        self._events: list[tuple[float, int, Callable[[], None]]] = []
        self._numbers = itertools.count()
        self._seconds: list[float] = []
        self._regrets: list[float] = []
        self._counts: Counter[str] = Counter()
        for one in self.orchestrators.values():
            self._refresh(one)
            self._at(randomness.uniform(0, _REFRESH), partial(self._keep_fresh, one))
            self._at(randomness.uniform(0, _REFRESH), partial(self._live, one))

    def run(self, requests: int, per_second: float) -> Outcome:
        """Let so many requests arrive at random moments, and all of them end."""
        arrival = 0.0
        for _ in range(requests):
            arrival += self._random.expovariate(per_second)
            self._at(arrival, partial(self._try, arrival, set()))
        last = arrival + 60
        while self._events and len(self._seconds) + self._counts["failed"] < requests:
            self.now, _, act = heapq.heappop(self._events)
            if self.now > last:
                break
            act()
        seconds = sorted(self._seconds)
        return Outcome(
            regret=sum(self._regrets) / len(self._regrets),
            p50_seconds=seconds[len(seconds) // 2],
            p99_seconds=seconds[len(seconds) * 99 // 100],
            failed=requests - len(seconds),
            refusals=self._counts["refused"],
        )

    def _make(self, count: int) -> list[Orchestrator]:
        made = []
        for number in range(count):
            slow = self._random.random() < _SLOW
            price = Fraction(self._random.randrange(1_000_000, 4_000_000))
            places = self._random.randrange(1, 5)
            pace = self._random.uniform(0.6, 3.0) * (10 if slow else 1)
            fails = self._random.random() < _FAILING and not self._world.is_sound
            one = Orchestrator(f"https://o{number}", price, places, pace, fails)
            if self._world.is_trusting:
                one.standing = Standing()
            made.append(one)
        return made

    def _at(self, when: float, act: Callable[[], None]) -> None:
        heapq.heappush(self._events, (when, next(self._numbers), act))

    def _keep_fresh(self, one: Orchestrator) -> None:
        self._refresh(one)
        self._at(self.now + _REFRESH, partial(self._keep_fresh, one))

    def _live(self, one: Orchestrator) -> None:
        """Other gateways come and go, and the price may change; nobody tells us."""
        if self._random.random() < _FLAPS:
            one.ask(one.price * Fraction(self._random.choice([8, 9, 11, 12]), 10))
        one.others = min(self._random.randrange(0, 4) // 2, max(one.places - one.ours, 0))
        if self._world.is_fresh:
            self._refresh(one)
        self._at(self.now + self._random.uniform(0, 2 * _REFRESH), partial(self._live, one))

    def _refresh(self, one: Orchestrator) -> None:
        one.seen = one.free
        self._tell(one)

    def _tell(self, one: Orchestrator) -> None:
        """What became known of it is what the next choice is made of."""
        self.market.put(
            Prospect(
                one.uri,
                one.price.numerator,
                one.price.denominator,
                free=one.offered,
                pace=self._pace(one),
                overhead=FEMTOSECONDS // 50,
                fresh_until=self.now + 60,
                suspended_until=one.standing.suspended_until,
            )
        )

    def _count(self, uri: str, change: int) -> None:
        one = self.orchestrators[uri]
        one.ours += change
        one.seen -= change
        self.market.recount(uri, one.offered)

    def _pace(self, one: Orchestrator) -> int:
        """Femtoseconds per pixel and step."""
        if self._world.paces is Paces.KNOWN:
            return round(one.pace * FEMTOSECONDS / (NEED.pixels * NEED.steps))
        pace = one.standing.pace(MODEL, NEED.size)
        if pace is not None:
            return pace
        if self._world.paces is Paces.CONSTANT:
            return Policy().unmeasured_pace
        return self.beliefs.paces(MODEL)[NEED.size]

    def _best_truth(self) -> float:
        free = (one.cost for one in self.orchestrators.values() if one.free > 0 and not one.fails)
        return min(free, default=0.0)

    def _try(self, began: float, tried: set[str]) -> None:
        uri = self._strategy(self, tried) if len(tried) < _MOST_ATTEMPTS else None
        if uri is None:
            self._counts["failed"] += 1
            return
        one = self.orchestrators[uri]
        tried.add(uri)
        if one.free <= 0:
            # Somebody else was there first: what it advertised is old.
            self._counts["refused"] += 1
            one.seen = 0
            self.market.recount(uri, one.offered)
            self._at(self.now + _REFUSAL, partial(self._try, began, tried))
            return
        best = self._best_truth()
        self._count(uri, 1)
        if one.fails:
            self._at(self.now + _FAILURE, partial(self._failed, one, began, tried))
        else:
            self._work(one, began, best, tried)

    def _work(self, one: Orchestrator, began: float, best: float, tried: set[str]) -> None:
        """A job begins at one that delivers. `best` is what the best choice would have cost."""
        del tried
        sent = self.now
        self._at(self.now + one.pace, partial(self._delivered, one, began, sent, best))

    def _failed(self, one: Orchestrator, began: float, tried: set[str]) -> None:
        self._count(one.uri, -1)
        one.standing = after_failure(one.standing, Fault.FAULTY, "", Pausing(), self.now)
        self._tell(one)
        self._try(began, tried)

    def _delivered(self, one: Orchestrator, began: float, sent: float, best: float) -> None:
        self._count(one.uri, -1)
        job = Delivery(MODEL, NEED.pixels, NEED.steps, self.now - sent)
        one.standing = after_success(one.standing, job, believed=0)
        pace = one.standing.pace(MODEL, NEED.size)
        if pace is not None:
            self.beliefs.learn_pace(one.uri, MODEL, NEED.size, pace)
        self._tell(one)
        self._seconds.append(self.now - began)
        cost = float(one.price * NEED.pixels) + float(TIME_VALUE) * (self.now - began)
        self._regrets.append(cost / best - 1 if best else 0.0)


def ours(simulation: Simulation, tried: set[str]) -> str | None:
    best = simulation.market.best(NEED, simulation.now, tried)
    return None if best is None else best.uri


def round_robin(simulation: Simulation, tried: set[str]) -> str | None:
    """The next that advertises a place."""
    for _ in simulation.uris:
        simulation.turn = (simulation.turn + 1) % len(simulation.uris)
        uri = simulation.uris[simulation.turn]
        known = simulation.market.get(uri)
        if uri not in tried and known is not None and known.free > 0:
            return uri
    return None


def least_busy(simulation: Simulation, tried: set[str]) -> str | None:
    """The one with the fewest of our own jobs, of those the first."""
    free = (
        (simulation.orchestrators[uri].ours, number, uri)
        for number, uri in enumerate(simulation.uris)
        if uri not in tried
        and (known := simulation.market.get(uri)) is not None
        and known.free > 0
    )
    return min(free, default=(0, 0, None))[2]


STRATEGIES: Final[dict[str, Strategy]] = {
    "ours": ours,
    "round_robin": round_robin,
    "least_busy": least_busy,
}

#: Our own choice where it knows less or more: each line differs from the one before it by one thing.
WORLDS: Final[dict[str, World]] = {
    "constant_pace": World(Paces.CONSTANT, is_trusting=True),
    "learned_pace": World(is_trusting=True),
    "newcomers_one_by_one": World(),
    "known_pace": World(Paces.KNOWN),
    "known_pace_trusting": World(Paces.KNOWN, is_trusting=True),
    "fresh_as_well": World(Paces.KNOWN, is_fresh=True, is_trusting=True),
    "nobody_fails": World(Paces.KNOWN, is_fresh=True, is_sound=True, is_trusting=True),
}
