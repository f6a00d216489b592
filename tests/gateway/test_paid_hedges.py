"""Late jobs that are paid for by ticket: what is paid to the slower one is not lost, where that is known."""

import asyncio
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest

from gateway.accounting.payments import payment_total
from gateway.dispatch import hedging
from gateway.dispatch.hedging import Hedging
from network.units import Wei
from tests.gateway.routing import SIGNER, Desk, Key, open_desk, request_for, until
from tests.gateway.stub_orchestrator import StubOrchestrator, running
from tests.gateway.stub_till import Style, win_value
from tests.gateway.test_paid_dispatch import (
    FEE,
    balance,
    funded,
    paid_stub,
    run,
    the_journal_tells_the_same,
)

HEDGING = Hedging(Wei(3 * FEE), share=1.0, spare=5, quantile=0.5)


async def learn(desk: Desk, first: StubOrchestrator, second: StubOrchestrator) -> None:
    """Both delivered something: whether they tell of our money is known then."""
    for number in range(3):
        await run(desk, f"quick{number}")
    result = await desk.dispatcher.run("other", Key(), request_for(), avoided={first.uri})
    await result.settled
    assert (first.delivered, second.delivered) == (3, 1)


async def settled(desk: Desk) -> None:
    assert desk.paying is not None
    paying = desk.paying
    await until(lambda: not paying.figures()["payments_in_doubt"])


def fates(desk: Desk) -> dict[str, int]:
    assert desk.dispatcher.hedges is not None
    return {fate: count for fate, count in desk.dispatcher.hedges.figures().items() if count}


async def test_tickets_of_the_one_that_was_cancelled_pay_for_its_next_job(tmp_path: Path) -> None:
    first, second = paid_stub(), paid_stub(price=3)
    value = win_value(1_000_000, 3000)
    async with (
        running(first),
        running(second),
        open_desk(tmp_path, [first, second], chain=funded(first, second), hedging=HEDGING) as desk,
    ):
        await learn(desk, first, second)
        assert first.till is not None
        before, tickets = balance(desk, first), first.till.tickets
        first.job_seconds = 30.0
        await run(desk, "late")
        await settled(desk)
        sent = first.till.tickets - tickets
        assert (fates(desk), sent) == ({"second": 1}, 2 if before < FEE - value else 1)
        # Nothing was charged there, and what was paid is credit, by both sides' books.
        assert balance(desk, first) == before + sent * value
        record = await desk.journal.request("late")
        assert record is not None
        assert (record.fee, record.charged) == (3 * FEE, 3 * FEE)
        for stub in (first, second):
            assert stub.till is not None
            assert balance(desk, stub) == stub.till.balance(SIGNER.address, "m")
        await the_journal_tells_the_same(desk)
        first.job_seconds = 0.0
        await run(desk, "next")
        assert first.till.tickets == tickets + sent, "the credit paid for it"


def charging(end: Callable[..., None], *job: object, charge: bool) -> None:
    del charge
    end(*job, charge=True)


async def test_one_that_charged_before_it_was_cancelled_is_an_expense_that_the_books_tell(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second = paid_stub(), paid_stub(price=3)
    async with (
        running(first),
        running(second),
        open_desk(tmp_path, [first, second], chain=funded(first, second), hedging=HEDGING) as desk,
    ):
        await learn(desk, first, second)
        before = balance(desk, first)
        assert first.till is not None
        first.job_seconds = 30.0
        till = first.till
        # It had delivered when it heard of the end.
        monkeypatch.setattr(till, "end", partial(charging, till.end))
        await run(desk, "late")
        await settled(desk)
        record = await desk.journal.request("late")
        assert record is not None
        # The client pays one fee. We were charged two, and the record of the request says so.
        assert (record.fee, record.charged) == (3 * FEE, 4 * FEE)
        assert balance(desk, first) == till.balance(SIGNER.address, "m") > before - FEE
        # It may have been quicker than we. Whoever lives on such has to deliver in between.
        assert desk.paying is not None
        assert not desk.paying.cancels_free(first.uri, Wei(FEE))
        first.job_seconds = 0.0
        monkeypatch.setattr(hedging, "_SHORTEST", 30.0)
        await run(desk, "next")
        assert desk.paying.cancels_free(first.uri, Wei(FEE))
        await the_journal_tells_the_same(desk)


@pytest.mark.parametrize("who", ["first", "second"])
async def test_nodes_that_do_not_tell_are_never_one_of_two(tmp_path: Path, who: str) -> None:
    styles: dict[str, Style] = {"first": "limner", "second": "limner", who: "livepeer"}
    first, second = paid_stub(styles["first"]), paid_stub(styles["second"], price=3)
    async with (
        running(first),
        running(second),
        open_desk(tmp_path, [first, second], chain=funded(first, second), hedging=HEDGING) as desk,
    ):
        await learn(desk, first, second)
        first.gate = asyncio.Event()
        late = asyncio.create_task(run(desk, "late"))
        if who == "second":
            await until(lambda: fates(desk))
        else:
            await asyncio.sleep(0.3)
        first.gate.set()
        await late
        assert (first.delivered, second.delivered) == (4, 1)
        assert fates(desk) == ({"withheld": 1} if who == "second" else {})


async def test_who_does_not_tell_any_more_is_no_longer_trusted_to(tmp_path: Path) -> None:
    first, second = paid_stub(), paid_stub(price=3)
    async with (
        running(first),
        running(second),
        open_desk(tmp_path, [first, second], chain=funded(first, second), hedging=HEDGING) as desk,
    ):
        await learn(desk, first, second)
        assert desk.paying is not None
        assert desk.paying.cancels_free(first.uri, Wei(FEE))
        assert first.till is not None
        first.till.tells = False
        first.script.append("drop")
        await run(desk, "lost")
        # It was another make all the time, or became one.
        first.till.style, first.till.tells = "livepeer", True
        await settled(desk)
        assert not desk.paying.cancels_free(first.uri, Wei(FEE))
        assert desk.paying.cancels_free(first.uri, Wei(0)), "nothing is paid for what is free"
        assert desk.paying.cancels_free(second.uri, Wei(FEE))


async def test_a_crowd_of_which_many_are_late_leaves_books_that_agree(tmp_path: Path) -> None:
    first, second = paid_stub(), paid_stub(price=3)
    generous = replace(HEDGING, spare=100)
    async with (
        running(first),
        running(second),
        open_desk(
            tmp_path, [first, second], chain=funded(first, second), hedging=generous
        ) as desk,
    ):
        await learn(desk, first, second)
        first.script.extend(["deliver", "hang", "deliver", "drop"] * 10)
        await asyncio.gather(*(run(desk, f"r{number}") for number in range(40)))
        await settled(desk)
        assert fates(desk)["second"] >= 10
        assert first.cancelled >= 10
        for stub in (first, second):
            assert stub.till is not None
            assert balance(desk, stub) == stub.till.balance(SIGNER.address, "m")
        await the_journal_tells_the_same(desk)
        assert first.till is not None
        assert second.till is not None
        charged = sum([*first.till.charged.values(), *second.till.charged.values()])
        total = await desk.journal.read(lambda connection: payment_total(connection, 0.0))
        (used,) = await desk.journal.usage("key")
        assert used.fee <= total.charged == charged
