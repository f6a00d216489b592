"""What is not paid: quotes that would cost more than they say, and payments that nothing stands behind."""

import asyncio
from collections.abc import Callable
from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import pytest

from gateway.config import PaymentSettings
from network.chain.model import ChainUnavailableError
from network.errors import ProblemError
from network.payments.tickets import CERTAIN, CreationRound, TicketParams
from network.units import Address, Wei
from network.wire.messages import TextToImageRequest
from tests.gateway.routing import SIGNER, Desk, Key, open_desk, request_for, until
from tests.gateway.stub_orchestrator import StubModel, running
from tests.gateway.test_paid_dispatch import FEE, funded, paid_stub, run, seldom
from tests.network.chain.fake_chain import FakeChain

Spoil = Callable[[TicketParams], TicketParams]


def objection(desk: Desk) -> str:
    found = (one for state in desk.directory.states() for one in state.objections.values())
    return next(found, "")


class LongRounds(FakeChain):
    """A quote of the round before has expired when the next one begins."""

    round_length = 60


async def test_a_round_that_began_since_we_looked_is_looked_up(tmp_path: Path) -> None:
    """Case 8: the orchestrator sees it first, and its quote is none of a malicious one."""
    stub = paid_stub()
    chain = funded(stub, chain=LongRounds())
    async with (
        running(stub),
        open_desk(tmp_path, [stub], chain=chain, refreshing=seldom(), poll_seconds=60.0) as desk,
    ):
        await run(desk, "r1")
        chain.next_round()
        await run(desk, "r2")
        assert stub.delivered == 2


MALICIOUS: dict[str, tuple[Spoil, str]] = {
    "a face value above the deposit": (
        lambda p: replace(p, face_value=Wei(10**13), win_prob=CERTAIN // 10**10),
        "is above 1000000000000, what our deposit covers",
    ),
    "a ticket that is sure to win": (lambda p: replace(p, win_prob=CERTAIN), "too low"),
    "a ticket worth too much": (
        lambda p: replace(p, face_value=Wei(10**13), win_prob=CERTAIN * 9 // 10),
        "max ticket EV",
    ),
    "an end far away": (lambda p: replace(p, expiration_block=p.expiration_block + 100), "lasts"),
    "no end": (lambda p: replace(p, expiration_block=0), "expiration block is 0"),
    "somebody else's account": (
        lambda p: replace(p, recipient=Address(b"\x66" * 20)),
        "not the orchestrator",
    ),
    "a round hash of another chain (case 28)": (
        lambda p: replace(p, creation=CreationRound(p.creation.number, b"\x01" * 32)),
        "not what our chain says",
    ),
    "a round to come": (
        lambda p: replace(p, creation=CreationRound(p.creation.number + 2, p.creation.block_hash)),
        "not what our chain says",
    ),
    "no round": (lambda p: replace(p, creation=CreationRound()), "not what our chain says"),
}


@pytest.mark.parametrize("name", MALICIOUS)
async def test_case_24_a_malicious_quote_is_passed_over_and_explained(
    tmp_path: Path, name: str
) -> None:
    spoil, said = MALICIOUS[name]
    cheap, honest = paid_stub(), paid_stub(price=2)
    assert cheap.till is not None
    cheap.till.spoil = spoil
    chain = funded(cheap, honest)
    async with (
        running(cheap),
        running(honest),
        open_desk(tmp_path, [cheap, honest], chain=chain) as desk,
    ):
        await run(desk, "r1")
        assert said in objection(desk)
        assert honest.delivered == 1
        assert cheap.seen == []


async def test_case_24_quotes_that_have_always_expired_are_asked_for_once_more_and_no_oftener(
    tmp_path: Path,
) -> None:
    stub, other = paid_stub(), paid_stub(price=2)
    assert stub.till is not None
    stub.till.spoil = lambda p: replace(p, expiration_block=1)
    chain = funded(stub, other)
    async with (
        running(stub),
        running(other),
        open_desk(tmp_path, [stub, other], chain=chain, refreshing=seldom()) as desk,
    ):
        await run(desk, "r1")
        assert (len(stub.seen), other.delivered) == (0, 1)
        assert desk.directory.states()[0].last_fault == "it refused 2 times: TicketParams expired"


async def test_case_24_the_reason_stands_in_the_answer_where_nobody_is_left(
    tmp_path: Path,
) -> None:
    stub = paid_stub()
    assert stub.till is not None
    stub.till.spoil = lambda p: replace(p, recipient=Address(b"\x66" * 20))
    async with running(stub), open_desk(tmp_path, [stub], chain=funded(stub)) as desk:
        with pytest.raises(ProblemError, match="1 its tickets are not acceptable"):
            await run(desk, "r1")


async def test_case_13_an_orchestrator_that_is_not_active_is_not_paid(tmp_path: Path) -> None:
    stub = paid_stub()
    chain = funded(stub)
    chain.pool.clear()
    async with running(stub), open_desk(tmp_path, [stub], chain=chain) as desk:
        with pytest.raises(ProblemError):
            await run(desk, "r1")
        assert "no active orchestrator" in objection(desk)
        assert stub.seen == []


async def test_an_orchestrator_that_quotes_no_tickets_is_not_worked_with(tmp_path: Path) -> None:
    stub = paid_stub()
    chain = funded(stub)
    stub.till = None
    async with running(stub), open_desk(tmp_path, [stub], chain=chain) as desk:
        with pytest.raises(ProblemError):
            await run(desk, "r1")
        assert objection(desk) == "it quotes no ticket parameters"


async def test_an_orchestrator_that_refuses_to_quote_is_not_taken_by_its_price_list(
    tmp_path: Path,
) -> None:
    stub = paid_stub()
    stub.unpriced = "m"
    async with running(stub), open_desk(tmp_path, [stub], chain=funded(stub)) as desk:
        with pytest.raises(ProblemError):
            await run(desk, "r1")
        assert "insufficient sender reserve" in objection(desk)
        assert stub.seen == []


async def test_case_24_a_price_that_more_than_doubles_is_not_paid(tmp_path: Path) -> None:
    stub = paid_stub()
    async with running(stub), open_desk(tmp_path, [stub], chain=funded(stub)) as desk:
        await run(desk, "r1")
        stub.models["m"] = StubModel(Fraction(2))
        await until(lambda: desk.directory.states()[0].offer.models["m"].price == 2)  # type: ignore[union-attr, index]
        await run(desk, "r2")
        stub.models["m"] = StubModel(Fraction(5))
        await until(lambda: objection(desk))
        assert "more than doubled, from 1 to 5" in objection(desk)
        with pytest.raises(ProblemError):
            await run(desk, "r3")
        assert len(stub.seen) == 2


async def test_case_24_one_whose_tickets_are_above_a_cap_does_not_keep_others_from_being_paid(
    tmp_path: Path,
) -> None:
    stub, other = paid_stub(value=10**11, face_value=10**12), paid_stub(price=2)
    chain = funded(stub, other)
    async with (
        running(stub),
        running(other),
        open_desk(
            tmp_path, [stub, other], chain=chain, pay=PaymentSettings(max_wei_per_hour=Wei(10**6))
        ) as desk,
    ):
        await run(desk, "r1")
        assert (len(stub.seen), other.delivered) == (0, 1)


async def test_too_many_tickets_are_not_signed(tmp_path: Path) -> None:
    stub, other = paid_stub(value=6), paid_stub(price=2)
    chain = funded(stub, other)
    async with (
        running(stub),
        running(other),
        open_desk(tmp_path, [stub, other], chain=chain) as desk,
    ):
        await run(desk, "r1")
        assert (len(stub.seen), other.delivered) == (0, 1)


# Nobody can be paid


async def refused(
    desk: Desk,
    key: Key = Key(),  # noqa: B008
    request: TextToImageRequest | None = None,
) -> ProblemError:
    with pytest.raises(ProblemError) as caught:
        await desk.dispatcher.run("refused", key, request or request_for())
    return caught.value


async def test_case_12_nothing_is_paid_while_the_deposit_unlocks(tmp_path: Path) -> None:
    stub = paid_stub()
    chain = funded(stub)
    async with (
        running(stub),
        open_desk(tmp_path, [stub], chain=chain, refreshing=seldom()) as desk,
    ):
        assert desk.payments is not None
        chain.unlock(SIGNER.address)
        chain.next_round()
        await desk.payments.watch.refresh()
        await desk.payments.deposit.refresh()
        problem = (await refused(desk)).problem
        assert (problem.status, problem.code) == (503, "payments_unavailable")
        # Why is the operator's to know.
        assert "unlock" not in problem.message
        assert "unlock in round" in desk.payments.purse.problem()
        assert stub.seen == []
        assert desk.payments.exposure.outstanding(0).value == 0


async def test_case_30_nothing_is_paid_while_the_broker_is_paused(tmp_path: Path) -> None:
    stub = paid_stub()
    chain = funded(stub)
    async with running(stub), open_desk(tmp_path, [stub], chain=chain) as desk:
        chain.is_paused = True
        assert desk.payments is not None
        purse = desk.payments.purse
        await until(purse.problem)
        assert "paused" in purse.problem()
        assert (await refused(desk)).problem.code == "payments_unavailable"
        chain.is_paused = False
        await until(lambda: not purse.problem())
        await run(desk, "r1")


async def test_case_15_nothing_is_paid_on_what_nobody_has_read(tmp_path: Path) -> None:
    stub = paid_stub()
    chain = funded(stub)
    chain.problem = ChainUnavailableError("down")
    async with running(stub), open_desk(tmp_path, [stub], chain=chain) as desk:
        assert (await refused(desk)).problem.code == "payments_unavailable"
        assert stub.seen == []
        chain.problem = None
        assert desk.payments is not None
        purse = desk.payments.purse
        await until(lambda: not purse.problem())
        desk.directory.hurry(stub.uri)
        await until(lambda: not objection(desk))
        await run(desk, "r1")


async def test_case_10_tickets_out_are_worth_no_more_than_the_deposit(tmp_path: Path) -> None:
    stub, other = paid_stub(), paid_stub()
    chain = funded(stub, other)
    chain.funds[SIGNER.address].deposit = 1_000_000
    for one in (stub, other):
        assert one.till is not None
        one.till.value = 400_000
    async with (
        running(stub),
        running(other),
        open_desk(tmp_path, [stub, other], chain=chain) as desk,
    ):
        assert desk.payments is not None
        for number in range(2):
            await run(desk, f"r{number}", width=512, height=512)
        # A third ticket would be worth more than is left, whoever gets it.
        big = request_for(width=1024, height=1024)
        problem = (await refused(desk, request=big)).problem
        assert problem.code == "payments_unavailable"
        out = desk.payments.purse.figures()
        assert out["outstanding_wei"] <= 1_000_000
        # Two rounds later they can be redeemed no more.
        chain.next_round(2)
        await desk.payments.watch.refresh()
        desk.directory.hurry(stub.uri, other.uri)
        await asyncio.sleep(0.1)
        await run(desk, "last", width=512, height=512)


async def test_case_10_caps_of_an_hour_hold_for_key_orchestrator_and_gateway(
    tmp_path: Path,
) -> None:
    stub, other = paid_stub(), paid_stub(price=2)
    assert other.till is not None
    other.till.key = type(SIGNER)(b"\x78" * 32)
    chain = funded(stub, other)
    pay = PaymentSettings(
        max_wei_per_hour=Wei(40_000),
        max_wei_per_hour_per_key=Wei(20_000),
        max_wei_per_hour_per_orchestrator=Wei(10_000),
    )
    async with (
        running(stub),
        running(other),
        open_desk(tmp_path, [stub, other], chain=chain, pay=pay) as desk,
    ):
        first = Key("first")
        # 6000 and 3000: a third payment of 3000 to the cheap one is above its cap; the dear one has it.
        for number in range(3):
            await desk.dispatcher.run(f"a{number}", first, request_for())
        assert (stub.delivered, other.delivered) == (2, 1)
        problem = (await refused(desk, first)).problem
        assert (problem.status, problem.code) == (429, "rate_limited")
        assert 0 < int(problem.headers["Retry-After"]) <= 3610
        # The other keys go on until the gateway's own cap, or that of every orchestrator, is reached.
        assert (await refused(desk, Key("second"))).problem.status == 503
        assert sum(len(job.payment.tickets) for job in stub.seen) * 3000 <= 10_000


async def test_the_fee_is_what_was_agreed(tmp_path: Path) -> None:
    stub = paid_stub()
    stub.script.append("overcharge")
    async with running(stub), open_desk(tmp_path, [stub], chain=funded(stub)) as desk:
        with pytest.raises(ProblemError, match=f"charged {FEE + 1} wei"):
            await run(desk, "r1")
        assert desk.paying is not None
        paying = desk.paying
        await until(lambda: not paying.figures()["payments_in_doubt"])
