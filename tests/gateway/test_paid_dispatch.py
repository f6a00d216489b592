"""Paid requests through real sockets, to orchestrators that check every ticket."""

import asyncio
import json
import random
from collections import deque
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from fractions import Fraction
from pathlib import Path
from typing import Literal

import pytest
from click.testing import CliRunner

from gateway.accounting.payments import payment_total
from gateway.cli.usage import command
from gateway.config import PaymentSettings
from gateway.dispatch import doubts
from gateway.orchestrators.directory import Refreshing
from gateway.orchestrators.standing import Pausing
from gateway.payments.balances import Account
from network.chain.model import ChainUnavailableError
from network.errors import ProblemError
from network.units import Address, ModelId, Wei
from tests.gateway.routing import SIGNER, Desk, Key, open_desk, request_for, until
from tests.gateway.stub_orchestrator import Behaviour, StubModel, StubOrchestrator, running
from tests.gateway.stub_till import StubTill, Style, win_value
from tests.network.chain.fake_chain import FakeChain

#: What the default request costs at 1 wei per pixel.
FEE = 64 * 64
MODEL = ModelId("m")


def funded(*stubs: StubOrchestrator, chain: FakeChain | None = None) -> FakeChain:
    """A chain on which the gateway has funds and every stub is active."""
    chain = chain or FakeChain()
    chain.fund(SIGNER.address, Wei(10**12), Wei(10**12))
    for stub in stubs:
        if stub.till is not None:
            stub.till.chain = chain
            chain.add_orchestrator(stub.till.address)
    chain.next_round()
    return chain


def paid_stub(
    style: Style = "limner", price: int = 1, value: int = 3000, face_value: int = 1_000_000
) -> StubOrchestrator:
    till = StubTill(FakeChain(), style, value=value, face_value=face_value)
    return StubOrchestrator({"m": StubModel(Fraction(price))}, capacity=64, till=till)


@asynccontextmanager
async def paid_desk(
    tmp_path: Path,
    stubs: Sequence[StubOrchestrator],
    chain: FakeChain | None = None,
    pay: PaymentSettings = PaymentSettings(),  # noqa: B008
) -> AsyncIterator[Desk]:
    """A desk whose books agree with those of our own nodes when it closes."""
    async with open_desk(tmp_path, stubs, chain=chain or funded(*stubs), pay=pay) as desk:
        yield desk
        assert desk.paying is not None
        paying = desk.paying
        await until(lambda: not paying.figures()["payments_in_doubt"])
        for stub in stubs:
            if stub.till is not None and stub.till.style == "limner":
                assert balance(desk, stub) == stub.till.balance(SIGNER.address, "m")
        await the_journal_tells_the_same(desk)


def balance(desk: Desk, stub: StubOrchestrator) -> Fraction:
    assert desk.payments is not None
    assert stub.till is not None
    return desk.payments.balances.available(Account(stub.till.address, stub.uri, MODEL))


async def the_journal_tells_the_same(desk: Desk) -> None:
    """A gateway that started now would begin with the very balances of this one."""
    assert desk.payments is not None
    state = await desk.journal.payment_state(0.0)
    assert state.in_doubt == ()
    assert {
        Account(Address(bytes.fromhex(key.recipient)), key.orchestrator, key.model_id): amount
        for key, amount in state.available.items()
    } == desk.payments.balances._available


async def run(desk: Desk, name: str, **fields: object) -> None:
    result = await desk.dispatcher.run(name, Key(), request_for(**fields))
    await result.settled


@pytest.mark.parametrize("style", ["limner", "livepeer"])
async def test_a_job_is_paid_with_tickets_and_the_rest_pays_for_the_next(
    tmp_path: Path, style: Style
) -> None:
    stub = paid_stub(style)
    value = win_value(1_000_000, 3000)
    async with running(stub), paid_desk(tmp_path, [stub]) as desk:
        await run(desk, "r1")
        assert stub.till is not None
        assert stub.till.tickets == 2
        assert balance(desk, stub) == 2 * value - FEE
        assert balance(desk, stub) == stub.till.balance(SIGNER.address, "m")
        await run(desk, "r2")
        # 1904 are left of 6000, and 4096 are due: one ticket more.
        assert stub.till.tickets == 3
        assert balance(desk, stub) == 3 * value - 2 * FEE
        record = await desk.journal.request("r2")
        assert record is not None
        assert (record.fee, record.tickets, record.charged) == (FEE, 1, FEE)
        assert record.paid == record.credited == value


async def test_case_10_fifty_at_once_pay_and_both_sides_agree(tmp_path: Path) -> None:
    """One balance, fifty requests: nobody spends what another counts on, and nothing is paid twice."""
    stub = paid_stub()
    stub.job_seconds = 0.01
    async with running(stub), paid_desk(tmp_path, [stub]) as desk:
        await asyncio.gather(*(run(desk, f"r{number}") for number in range(50)))
        assert stub.delivered == 50
        assert stub.till is not None
        assert sum(stub.till.charged.values()) == 50 * FEE
        # Each paid with two tickets at most, although many had nothing to begin with.
        assert 50 * FEE <= sum(stub.till.credited.values()) <= 100 * win_value(1_000_000, 3000)
        # What is left over is used up before anything more is paid.
        before = stub.till.tickets
        await asyncio.gather(*(run(desk, f"s{number}") for number in range(20)))
        assert stub.till.tickets - before < 20


async def test_usage_shows_what_was_paid_and_what_was_charged(tmp_path: Path) -> None:
    stub = paid_stub()
    async with running(stub), paid_desk(tmp_path, [stub]) as desk:
        await run(desk, "r1")
        stub.script.append("crash_500")
        with pytest.raises(ProblemError):
            await run(desk, "r2")
        await desk.journal.drain()
        total = await desk.database.read(lambda connection: payment_total(connection, 0.0))
        assert stub.till is not None
        assert total.tickets == stub.till.tickets == 3
        assert total.credit == total.credited == sum(stub.till.credited.values())
        assert total.charged == FEE
        assert total.forfeited == Fraction(0)
    env = {"LIMNER_GATEWAY__ACCOUNTING__DATABASE_URL": f"sqlite:///{tmp_path / 'gateway.db'}"}
    told = await asyncio.to_thread(CliRunner().invoke, command, ["--json"], env=env)
    lines = {line["request_id"]: line for line in json.loads(told.output)}
    assert lines["r1"]["tickets"] == 2
    assert (lines["r1"]["paid"], lines["r1"]["charged"]) == ("6001", "4096")
    assert (lines["r2"]["paid"], lines["r2"]["charged"]) == ("3001", "0")
    table = await asyncio.to_thread(CliRunner().invoke, command, [], env=env)
    assert "paid in all: 3 tickets worth 9001 wei" in table.output
    assert "charged 4096, given up 0, left 4904 wei" in table.output


FAILURES: list[Behaviour] = ["crash_500", "wrong_seed", "drop", "drop_in_body", "charge_and_drop"]


@pytest.mark.parametrize("behaviour", FAILURES)
async def test_case_22_credit_of_a_failed_job_stays_at_our_node(
    tmp_path: Path, behaviour: Behaviour
) -> None:
    stub = paid_stub()
    stub.script.append(behaviour)
    async with running(stub), paid_desk(tmp_path, [stub]) as desk:
        with pytest.raises(ProblemError):
            await run(desk, "r1")
        assert desk.paying is not None
        paying = desk.paying
        await until(lambda: not paying.figures()["payments_in_doubt"])
        kept = 2 * win_value(1_000_000, 3000)
        is_charged = behaviour in {"charge_and_drop", "wrong_seed"}
        assert balance(desk, stub) == (kept - FEE if is_charged else kept)
        record = await desk.journal.request("r1")
        assert record is not None
        assert (record.fee, record.tickets, record.credited) == (0, 2, kept)
        assert record.charged == (FEE if is_charged else 0)


@pytest.mark.parametrize("behaviour", ["crash_500", "drop"])
async def test_case_22_credit_of_a_failed_job_is_given_up_at_livepeers_nodes(
    tmp_path: Path, behaviour: Behaviour
) -> None:
    stub, other = paid_stub("livepeer"), paid_stub("livepeer", price=3)
    async with running(stub), running(other), paid_desk(tmp_path, [stub, other]) as desk:
        await run(desk, "r1")
        assert balance(desk, stub) > 0
        stub.script.append(behaviour)
        await run(desk, "r2")
        assert other.delivered == 1
        assert desk.paying is not None
        paying = desk.paying
        await until(lambda: not paying.figures()["payments_in_doubt"])
        assert stub.till is not None
        assert balance(desk, stub) == 0 <= stub.till.balance(SIGNER.address, "m")


@pytest.mark.parametrize("style", ["limner", "livepeer"])
async def test_a_node_that_was_busy_took_nothing_and_keeps_what_it_had(
    tmp_path: Path, style: Style
) -> None:
    stub, other = paid_stub(style), paid_stub(style, price=3)
    async with running(stub), running(other), paid_desk(tmp_path, [stub, other]) as desk:
        await run(desk, "r1")
        left = balance(desk, stub)
        stub.script.append("busy")
        await run(desk, "r2")
        assert desk.paying is not None
        paying = desk.paying
        await until(lambda: not paying.figures()["payments_in_doubt"])
        assert balance(desk, stub) == left > 0


@pytest.mark.parametrize("style", ["limner", "livepeer"])
async def test_a_balance_that_the_orchestrator_forgot_is_paid_anew(
    tmp_path: Path, style: Style
) -> None:
    stub = paid_stub(style)
    async with running(stub), paid_desk(tmp_path, [stub]) as desk:
        await run(desk, "r1")
        # Enough for a whole job, so that the next one would send no tickets.
        await asyncio.gather(*(run(desk, f"s{number}") for number in range(8)))
        assert balance(desk, stub) >= FEE
        assert stub.till is not None
        stub.till.forget()
        await run(desk, "r2")
        record = await desk.journal.request("r2")
        assert record is not None
        assert (record.state, record.attempts) == ("settled", 2)
        assert balance(desk, stub) == stub.till.balance(SIGNER.address, "m") >= 0


async def test_case_7_an_expired_quote_is_asked_for_anew_before_it_is_used(tmp_path: Path) -> None:
    stub = paid_stub()
    chain = funded(stub)
    async with (
        running(stub),
        open_desk(tmp_path, [stub], chain=chain, refreshing=seldom()) as desk,
    ):
        assert stub.till is not None
        quotes = stub.till.quotes
        chain.mine(stub.till.lifetime - 2)
        assert desk.payments is not None
        await desk.payments.watch.refresh()
        await run(desk, "r1")
        assert stub.till.quotes > quotes
        assert stub.delivered == len(stub.seen) == 1


@pytest.mark.parametrize("style", ["limner", "livepeer"])
async def test_case_7_a_quote_that_expires_on_the_way_is_renewed_once(
    tmp_path: Path, style: Style
) -> None:
    stub = paid_stub(style)
    chain = funded(stub)
    async with (
        running(stub),
        open_desk(tmp_path, [stub], chain=chain, refreshing=seldom()) as desk,
    ):
        assert stub.till is not None
        # Where the node's view of the chain runs ahead of ours.
        ahead = FakeChain()
        ahead.l1_block = chain.l1_block + stub.till.lifetime
        ahead.last_initialized, ahead.hashes = chain.last_initialized, chain.hashes
        stub.till.chain = ahead
        stub.till.lifetime = 10
        await run(desk, "r1")
        record = await desk.journal.request("r1")
        assert record is not None
        assert (record.state, record.attempts) == ("settled", 2)
        assert balance(desk, stub) == stub.till.balance(SIGNER.address, "m")


async def test_six_hundred_tickets_use_a_quote_up(tmp_path: Path) -> None:
    stub = paid_stub(value=FEE // 60)
    async with (
        running(stub),
        open_desk(tmp_path, [stub], chain=funded(stub), refreshing=seldom()) as desk,
    ):
        assert stub.till is not None
        quotes = stub.till.quotes
        for number in range(10):
            await run(desk, f"r{number}")
        assert stub.till.tickets == len(stub.till.nonces) > 600
        assert stub.till.quotes == quotes + 1


async def test_case_25_free_work_needs_no_tickets_and_no_chain(tmp_path: Path) -> None:
    stub = paid_stub(price=0)
    chain = funded(stub)
    chain.problem = ChainUnavailableError("down")
    async with running(stub), open_desk(tmp_path, [stub], chain=chain) as desk:
        await run(desk, "r1")
        assert stub.seen[0].payment.tickets == ()
        assert stub.seen[0].payment.expected_price == 0
        record = await desk.journal.request("r1")
        assert record is not None
        assert (record.fee, record.tickets) == (0, 0)


@pytest.mark.parametrize("behaviour", ["drop", "charge_and_drop"])
async def test_case_19_a_gateway_that_starts_again_asks_what_became_of_its_attempts(
    tmp_path: Path, behaviour: Behaviour
) -> None:
    stub = paid_stub()
    chain = funded(stub)
    assert stub.till is not None
    async with running(stub):
        async with open_desk(tmp_path, [stub], chain=chain) as desk:
            await run(desk, "r1")
            stub.script.append(behaviour)
            stub.till.tells = False
            with pytest.raises(ProblemError):
                await run(desk, "r2", num_images_per_prompt=4)
            assert desk.paying is not None
            assert desk.paying.figures()["payments_in_doubt"] == 1
            assert balance(desk, stub) == 0
        async with open_desk(tmp_path, [stub], chain=chain) as desk:
            assert desk.paying is not None
            paying = desk.paying
            assert paying.figures()["payments_in_doubt"] == 1
            # What is in doubt is not counted on, and does not keep others from being paid.
            assert balance(desk, stub) == 0
            await run(desk, "r3")
        stub.till.tells = True
        async with paid_desk(tmp_path, [stub], chain) as desk:
            assert desk.paying is not None
            paying = desk.paying
            await until(lambda: not paying.figures()["payments_in_doubt"])
            record = await desk.journal.request("r2")
            assert record is not None
            charged = 4 * FEE if behaviour == "charge_and_drop" else 0
            assert (record.fee, record.charged) == (0, charged)
            assert record.credited == record.paid > 0


async def test_case_22_a_client_that_leaves_takes_nothing_of_the_balance(tmp_path: Path) -> None:
    stub = paid_stub()
    stub.script.append("hang")
    async with running(stub), paid_desk(tmp_path, [stub]) as desk:
        task = asyncio.create_task(run(desk, "r1"))
        await until(lambda: stub.under_way)
        task.cancel()
        await asyncio.wait([task])
        assert desk.paying is not None
        paying = desk.paying
        await until(lambda: not paying.figures()["payments_in_doubt"])
        assert balance(desk, stub) == 2 * win_value(1_000_000, 3000)


async def test_a_request_that_was_cut_off_may_reach_the_books_after_it_was_asked_about(
    tmp_path: Path,
) -> None:
    stub = paid_stub()
    stub.script.append("charge_and_drop")
    assert stub.till is not None
    stub.till.unseen = 2
    async with running(stub), paid_desk(tmp_path, [stub]) as desk:
        with pytest.raises(ProblemError):
            await run(desk, "r1")
        assert desk.paying is not None
        paying = desk.paying
        await until(lambda: not paying.figures()["payments_in_doubt"])
        assert stub.till.unseen < 0
        assert balance(desk, stub) == 2 * win_value(1_000_000, 3000) - FEE


async def test_after_a_while_what_a_node_never_saw_was_never_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(doubts, "_GRACE", 0.3)
    stub = paid_stub()
    async with running(stub), open_desk(tmp_path, [stub], chain=funded(stub)) as desk:
        await run(desk, "r1")
        left = balance(desk, stub)
        stub.script.append("drop")
        assert stub.till is not None
        stub.till.unseen = 1000
        with pytest.raises(ProblemError):
            await run(desk, "r2")
        assert desk.paying is not None
        paying = desk.paying
        await until(lambda: not paying.figures()["payments_in_doubt"])
        # Its tickets are gone, and the balance is as it was before.
        assert balance(desk, stub) == left
        record = await desk.journal.request("r2")
        assert record is not None
        assert record.paid > record.credited == 0


async def test_an_orchestrator_that_is_not_there_was_paid_nothing(tmp_path: Path) -> None:
    stub, other = paid_stub(), paid_stub(price=3)
    stub.transcoder = "http://127.0.0.1:9"
    async with running(stub), running(other), paid_desk(tmp_path, [stub, other]) as desk:
        await run(desk, "r1")
        assert desk.payments is not None
        record = await desk.journal.request("r1")
        assert record is not None
        # Of two attempts, only the second sent its tickets: 12288 at 3000 each.
        assert (record.attempts, record.tickets) == (2, 5)
        out = desk.payments.purse.figures()
        assert out["outstanding_wei"] == out["paid_in_the_last_hour_wei"] == 15001


MIXED: list[Behaviour] = [
    "deliver",
    "deliver_by_link",
    "crash_500",
    "drop",
    "charge_and_drop",
    "wrong_seed",
    "returned_400",
    "token_expired",
    "busy",
]


async def test_both_balances_agree_after_each_of_a_thousand_mixed_outcomes(tmp_path: Path) -> None:
    """Success, failure, cancel, a cut connection, expiry and refresh, in any order."""
    stub = paid_stub()
    chain = funded(stub)
    dice = random.Random(4)  # noqa: S311  the same mixture each time
    async with (
        running(stub),
        open_desk(
            tmp_path, [stub], chain=chain, pausing=Pausing(0.0, 0.0), refreshing=seldom()
        ) as desk,
    ):
        assert desk.paying is not None
        assert stub.till is not None
        paying = desk.paying
        for number in range(1000):
            what: Behaviour | Literal["cancel", "expire"] = dice.choice(
                [*MIXED, "cancel", "expire"]
            )
            if what == "expire":
                chain.mine(dice.randrange(1, 50))
                if chain.last_initialized != chain.current_round:
                    chain.initialize_round()
                assert desk.payments is not None
                await desk.payments.watch.refresh()
                desk.directory.hurry(stub.uri)
                continue
            stub.script = deque(["hang" if what == "cancel" else what])
            task = asyncio.create_task(
                run(desk, f"r{number}", num_images_per_prompt=1 + number % 3)
            )
            if what == "cancel":
                await until(lambda: stub.under_way)
                task.cancel()
            await asyncio.wait([task])
            while paying.figures()["payments_in_doubt"] or stub.under_way:  # noqa: ASYNC110
                await asyncio.sleep(0)
            assert balance(desk, stub) == stub.till.balance(SIGNER.address, "m"), what
        assert stub.delivered > 200
        assert stub.cancelled > 20
        await the_journal_tells_the_same(desk)


def seldom() -> Refreshing:
    """Quotes are not renewed by themselves."""
    return Refreshing(interval=60.0, busy_interval=60.0, least_interval=0.0)
