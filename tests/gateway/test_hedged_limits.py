"""When a late job gets no second orchestrator: what it may cost, how often, and after a kill."""

import asyncio
import shutil
from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import pytest

from gateway.accounting.journal import MIGRATIONS, open_journal
from gateway.dispatch.hedging import Hedging
from gateway.keys import UseLimits
from gateway.payments.budget import Limits
from network.dollars import AttoUsd
from network.prices import fixed_usd
from network.runtime.database import open_database
from network.units import Wei
from tests.gateway.routing import Key, request_for, until
from tests.gateway.test_hedged_dispatch import (
    DEAR,
    FEE,
    NO_RETRIES,
    fates,
    hedged_desk,
    let_on,
    run,
    two,
    under_way,
)

QUICK = 3 * FEE
LIMITED: list[tuple[Key, Limits, bool]] = [
    (Key(limits=UseLimits(wei_per_day=Wei(QUICK + FEE + DEAR))), Limits(), True),
    (Key(limits=UseLimits(wei_per_day=Wei(QUICK + FEE + DEAR - 1))), Limits(), False),
    # Where an ETH costs a dollar, a wei is as much as the smallest part of a dollar.
    (Key(limits=UseLimits(usd_per_day=AttoUsd(QUICK + FEE + DEAR))), Limits(), True),
    (Key(limits=UseLimits(usd_per_day=AttoUsd(QUICK + FEE + DEAR - 1))), Limits(), False),
    (Key(), Limits(max_wei_in_flight=Wei(FEE + DEAR)), True),
    (Key(), Limits(max_wei_in_flight=Wei(FEE + DEAR - 1)), False),
    (Key(max_price=Fraction(3)), Limits(), True),
    (Key(max_price=Fraction(5, 2)), Limits(), False),
]


@pytest.mark.parametrize(("key", "limits", "is_hedged"), LIMITED)
async def test_both_fees_are_within_every_limit_or_there_is_no_second(
    tmp_path: Path, *, key: Key, limits: Limits, is_hedged: bool
) -> None:
    first, second = stubs = two()
    second.script.append("hang")
    routing = replace(NO_RETRIES, rates=fixed_usd(Fraction(1)))
    async with hedged_desk(tmp_path, stubs, limits=limits, routing=routing) as desk:
        async with under_way(desk, key) as request:
            await until(lambda: second.under_way if is_hedged else fates(desk)["withheld"])
            assert desk.budget.total == (FEE + DEAR if is_hedged else FEE)
            let_on(first)
        result = request.result()
        assert (result.orchestrator, result.fee) == (first.uri, FEE)
        assert bool(second.seen) == is_hedged
        # What is spent is one fee, and nothing is held for the other: there is room for what is left.
        if key.limits != UseLimits():
            await desk.dispatcher.run("r2", key, request_for())


OTHERS: list[tuple[Hedging, bool]] = [
    (Hedging(Wei(DEAR - 1), share=1.0, spare=5, quantile=0.5), False),
    (Hedging(Wei(FEE - 1), share=1.0, spare=5, quantile=0.5), False),
    (Hedging(Wei(DEAR), share=0.05, spare=0, quantile=0.5), False),
    (Hedging(Wei(DEAR), share=0.25, spare=0, quantile=0.5), True),
    (Hedging(Wei(DEAR), share=1.0, spare=5, quantile=0.95), False),
]


@pytest.mark.parametrize(("hedging", "is_hedged"), OTHERS)
async def test_what_is_dear_too_often_or_not_known_to_be_late_gets_no_second(
    tmp_path: Path, *, hedging: Hedging, is_hedged: bool
) -> None:
    first, second = stubs = two()
    async with hedged_desk(tmp_path, stubs, rules=hedging) as desk:
        if not is_hedged:
            first.gate, first.job_seconds = None, 0.3
        result = await run(desk)
        assert bool(second.seen) == is_hedged
        assert result.orchestrator == (second.uri if is_hedged else first.uri)


async def test_without_the_setting_nothing_of_it_is_there(tmp_path: Path) -> None:
    first, second = stubs = two()
    async with hedged_desk(tmp_path, stubs, rules=None) as desk:
        first.gate, first.job_seconds = None, 0.3
        assert desk.dispatcher.hedges is None
        assert (await run(desk)).attempts == 1
        assert not second.seen


def copy_files(source: Path, target: Path) -> None:
    target.mkdir()
    for file in source.glob("*.*"):
        shutil.copy(file, target)


async def test_a_gateway_that_is_killed_with_two_under_way_charges_nothing(tmp_path: Path) -> None:
    _, second = stubs = two()
    second.script.append("hang")
    left = tmp_path / "left"
    async with hedged_desk(tmp_path, stubs) as desk:
        request = asyncio.create_task(run(desk))
        await until(lambda: second.under_way)
        # What a process leaves behind that is killed now.
        await asyncio.to_thread(copy_files, tmp_path, left)
        request.cancel()
        with pytest.raises(asyncio.CancelledError):
            await request
    async with (
        open_database(f"sqlite:///{left / 'gateway.db'}", MIGRATIONS) as database,
        open_journal(database, left / "journal.ahead") as journal,
    ):
        assert await journal.close_interrupted(0.0) == 1
        record = await journal.request("r")
        assert record is not None
        assert (record.state, record.fee, record.attempts) == ("interrupted", 0, 2)
        assert await journal.close_interrupted(0.0) == 0


async def test_what_is_made_again_for_a_check_gets_no_second(tmp_path: Path) -> None:
    first, second = stubs = two()
    async with hedged_desk(tmp_path, stubs) as desk:
        first.gate, first.job_seconds = None, 0.3
        somebody = {"http://127.0.0.1:9"}
        result = await desk.dispatcher.run("r", Key(), request_for(), avoided=somebody)
        assert result.orchestrator == first.uri
        assert not second.seen
