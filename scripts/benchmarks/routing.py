"""What choosing an orchestrator costs, and how good the choices are.

A decision is the choice and the counting in of the job, in a market that changes meanwhile as its orchestrators are
refreshed and jobs end; looking at every orchestrator is timed beside it, and must choose the same. The simulation
plays the same arrivals against the gateway's choice, round robin and least busy. The last line is one JSON object.
"""

import argparse
import json
import sys
import time
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from random import Random
from typing import Final

from rich.console import Console
from rich.table import Table

from gateway.orchestrators.market import Market
from gateway.orchestrators.selection import Need, Policy, Prospect, rank
from network.units import ModelId, Pixels
from scripts.benchmarks.hedging import STALLS, Tail, compare
from scripts.benchmarks.simulation import STRATEGIES, WORLDS, Outcome, Simulation

_POLICY: Final = Policy(time_value=Fraction(10**12))
_SHAPES: Final = tuple(
    Need(ModelId("m"), Pixels(side * side * images), steps, cap)
    for side, images in ((512, 1), (1024, 1), (1024, 4))
    for steps in (20, 50)
    for cap in (None, Fraction(3_000_000))
)
_CHECKED: Final = 25
_IN_FLIGHT: Final = 200


@dataclass(frozen=True, slots=True)
class Decisions:
    """Microseconds."""

    p50: float
    p99: float
    change_p50: float
    scan_p50: float


def decide(count: int, decisions: int, randomness: Random) -> Decisions:
    """Raises RuntimeError where the choice is not the one that looking at everybody makes."""
    market = Market(_POLICY)
    uris = [f"https://o{number}.example" for number in range(count)]
    for uri in uris:
        market.put(_random_prospect(uri, randomness))
    for need in _SHAPES:
        market.best(need, 0.0)
    chosen, changed, scanned = [], [], []
    under_way: deque[str] = deque()
    for number in range(decisions):
        need = randomness.choice(_SHAPES)
        began = time.perf_counter()
        best = market.best(need, 0.0)
        if best is not None:
            market.recount(best.uri, best.prospect.free - 1)
        chosen.append(time.perf_counter() - began)
        if number % _CHECKED == 0:
            scanned.append(_scan(market, need, best and best.score, best and best.uri))
        if best is not None:
            under_way.append(best.uri)
        began = time.perf_counter()
        market.put(_random_prospect(randomness.choice(uris), randomness))
        changed.append(time.perf_counter() - began)
        if len(under_way) > _IN_FLIGHT:
            done = market.get(under_way.popleft())
            if done is not None:
                market.recount(done.uri, done.free + 1)
    return Decisions(_at(chosen, 50), _at(chosen, 99), _at(changed, 50), _at(scanned, 50))


def _scan(market: Market, need: Need, score: int | None, uri: str | None) -> float:
    # After the choice its place is taken: give it back for the comparison.
    prospects = [
        one.with_free(one.free + 1) if one.uri == uri else one for one in market.prospects()
    ]
    began = time.perf_counter()
    exhaustive = rank(need, prospects, _POLICY, 0.0).best
    seconds = time.perf_counter() - began
    found = None if exhaustive is None else (exhaustive.score, exhaustive.uri)
    if found != (None if uri is None else (score, uri)):
        raise RuntimeError(f"chose {uri}, where looking at everybody chooses {found}")
    return seconds


def _random_prospect(uri: str, randomness: Random) -> Prospect:
    return Prospect(
        uri,
        randomness.randrange(1_000_000, 4_000_000),
        1,
        free=randomness.randrange(0, 5),
        pace=randomness.randrange(10**8, 10**9),
        overhead=randomness.randrange(10**12, 10**14),
        fresh_until=1e9,
    )


def _at(seconds: Sequence[float], percent: int) -> float:
    ordered = sorted(seconds)
    return ordered[min(len(ordered) * percent // 100, len(ordered) - 1)] * 1e6


def main(arguments: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(prog="scripts/bench routing", description=__doc__)
    parser.add_argument("--decisions", type=int, default=20_000, help="timed (default 20000)")
    parser.add_argument("--requests", type=int, default=20_000, help="simulated (default 20000)")
    parser.add_argument("--orchestrators", type=int, default=1000, help="simulated (default 1000)")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument(
        "--parts",
        action="store_true",
        help="simulate our choice with less and more knowledge, too: what its regret comes from",
    )
    parser.add_argument(
        "--hedging",
        action="store_true",
        help="simulate jobs that stall, without and with a second orchestrator for what is late",
    )
    options = parser.parse_args(arguments)
    figures: dict[str, float] = {}
    for count in (1000, 10_000):
        found = decide(count, options.decisions, Random(options.seed))  # noqa: S311
        figures |= {
            f"decision_p50_us_{count}": round(found.p50, 2),
            f"decision_p99_us_{count}": round(found.p99, 2),
            f"change_p50_us_{count}": round(found.change_p50, 2),
            f"scan_p50_us_{count}": round(found.scan_p50, 2),
        }
    outcomes = {
        name: Simulation(options.orchestrators, strategy, Random(options.seed)).run(  # noqa: S311
            options.requests, per_second=options.orchestrators / 4
        )
        for name, strategy in STRATEGIES.items()
    }
    for name, outcome in outcomes.items():
        figures[f"regret_{name}"] = round(outcome.regret, 4)
        figures[f"p99_s_{name}"] = round(outcome.p99_seconds, 3)
    if options.parts:
        for name, world in WORLDS.items():
            randomness = Random(options.seed)  # noqa: S311
            simulation = Simulation(options.orchestrators, STRATEGIES["ours"], randomness, world)
            outcome = simulation.run(options.requests, per_second=options.orchestrators / 4)
            figures[f"regret_with_{name}"] = round(outcome.regret, 4)
            outcomes[f"ours, {name.replace('_', ' ')}"] = outcome
    tails = {}
    if options.hedging:
        tails = compare(options.orchestrators, options.requests, options.seed)
    for name, tail in tails.items():
        figures[f"stalls_p99_s_{name.replace(' ', '_')}"] = round(tail.p99_seconds, 3)
        figures[f"stalls_jobs_{name.replace(' ', '_')}"] = round(tail.jobs, 4)
    _report(figures, outcomes)
    if tails:
        _report_tails(tails)
    print(json.dumps(figures))
    return 0


def _report(figures: dict[str, float], outcomes: dict[str, Outcome]) -> None:
    console = Console(width=110)
    table = Table(title="one decision, microseconds")
    for column in ("orchestrators", "p50", "p99", "a change, p50", "looking at all, p50"):
        table.add_column(column, justify="right")
    for count in (1000, 10_000):
        names = ("decision_p50_us", "decision_p99_us", "change_p50_us", "scan_p50_us")
        table.add_row(str(count), *(f"{figures[f'{name}_{count}']:.1f}" for name in names))
    console.print(table)
    table = Table(title="choices, in simulated time")
    for column in ("", "regret", "p50 s", "p99 s", "refused as busy", "failed"):
        table.add_column(column, justify="right")
    for name, one in outcomes.items():
        table.add_row(
            name,
            f"{one.regret:.1%}",
            f"{one.p50_seconds:.2f}",
            f"{one.p99_seconds:.2f}",
            str(one.refusals),
            str(one.failed),
        )
    console.print(table)


def _report_tails(tails: dict[str, Tail]) -> None:
    table = Table(title=f"with {STALLS:.0%} of the jobs stalling, in simulated time")
    for column in ("late jobs are", "p50 s", "p99 s", "p99.9 s", "jobs a request", "work s"):
        table.add_column(column, justify="right")
    for name, one in tails.items():
        table.add_row(
            name,
            f"{one.p50_seconds:.2f}",
            f"{one.p99_seconds:.2f}",
            f"{one.p999_seconds:.2f}",
            f"{one.jobs:.3f}",
            f"{one.work_seconds:.2f}",
        )
    Console(width=110).print(table)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
