"""Our gateway pays orchestrators of go-livepeer, whose books are by model and tell nobody what is in them."""

import asyncio
import math
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from fractions import Fraction
from pathlib import Path

import pytest

from gateway.orchestrators.directory import Refreshing
from gateway.payments.balances import Account
from network.errors import ProblemError
from network.identity import KeySigner
from network.units import ModelId, Wei
from network.wire.tickets import decode_ticket_params
from tests.gateway.routing import SIGNER, Desk, Key, fast, open_desk, request_for, until
from tests.livepeer.go_orchestrator import GoModel, GoOrchestrator
from tests.livepeer.go_port import serving
from tests.livepeer.go_till import IDLE_SECONDS, LIFETIME_BLOCKS, TICKET_VALUE, GoTill
from tests.network.chain.fake_chain import FakeChain

#: Wei per pixel. With 1 % for redeeming a job of 64 x 64 costs 2.6 tickets of 8 gwei.
PRICE = Fraction(5_000_000)
FEE = 64 * 64 * 5_050_000
ETHER = 10**18


class SlowChain(FakeChain):
    """Its rounds are longer than quotes live, as on Livepeer's network."""

    round_length = 200


@dataclass
class Market:
    """Paid orchestrators, the chain that they and our gateway look at, and a clock of theirs."""

    chain: SlowChain = field(default_factory=SlowChain)
    now: float = 2_000_000_000.0
    all: list[GoOrchestrator] = field(default_factory=list)

    async def orchestrator(self, price: Fraction = PRICE, **options: object) -> GoOrchestrator:
        key = KeySigner(bytes([0x71 + len(self.all)]) * 32)
        self.chain.add_orchestrator(key.address)
        till = GoTill(await self.chain.head(), key=key, now=lambda: self.now)
        go = GoOrchestrator(till, {"m": GoModel(price)}, now=lambda: self.now)
        for name, value in options.items():
            setattr(go, name, value)
        self.all.append(go)
        return go

    async def look(self) -> None:
        """They see what the chain says now."""
        for go in self.all:
            assert go.till is not None
            await go.till.look(self.chain, SIGNER.address)


@asynccontextmanager
async def trading(
    tmp_path: Path,
    market: Market,
    *,
    refreshing: Refreshing | None = None,
    loses_balances: bool = False,
) -> AsyncIterator[Desk]:
    """At the end nobody was charged twice: what was debited is what was delivered.

    Of a balance we count no more than they do, unless they lost it (`loses_balances`).
    """
    chain = market.chain
    chain.fund(SIGNER.address, Wei(ETHER), Wei(ETHER))
    chain.next_round()
    await market.look()
    urls = [go.uri for go in market.all]
    async with open_desk(tmp_path, urls, chain=chain, refreshing=refreshing or fast()) as desk:
        yield desk
        assert desk.paying is not None
        paying = desk.paying
        await until(lambda: not paying.figures()["payments_in_doubt"])
        totals = {one.orchestrator: one for one in await desk.journal.orchestrator_totals()}
        for go in market.all:
            assert go.till is not None
            # Each fee is a part of a wei above theirs at most.
            fee, jobs = (totals[go.uri].fee, go.delivered) if go.uri in totals else (0, 0)
            assert 0 <= fee - go.till.debited < max(jobs, 1)
            assert loses_balances or balance(desk, go) <= theirs(go)


def balance(desk: Desk, go: GoOrchestrator) -> Fraction:
    assert desk.payments is not None
    return desk.payments.balances.available(Account(go.address, go.uri, ModelId("m")))


def theirs(go: GoOrchestrator) -> Fraction:
    assert go.till is not None
    return go.till.balance(SIGNER.address, "27_m")


def failures(desk: Desk, go: GoOrchestrator) -> int:
    return next(state.failures for state in desk.directory.states() if state.uri == go.uri)


async def run(desk: Desk, name: str, **fields: object) -> str:
    result = await desk.dispatcher.run(name, Key(), request_for(**fields))
    await result.settled
    return result.orchestrator


async def attempts(desk: Desk, name: str) -> int:
    record = await desk.journal.request(name)
    assert record is not None
    return record.attempts


async def test_the_price_with_its_overhead_is_paid_to_the_wei_and_both_count_alike(
    tmp_path: Path,
) -> None:
    market = Market()
    go = await market.orchestrator()
    async with serving(go, tmp_path), trading(tmp_path, market) as desk:
        for number in range(5):
            await run(desk, f"r{number}")
            assert balance(desk, go) == theirs(go) >= 0
        assert go.till is not None
        # 5 x 2.6 tickets, and not one too many.
        assert go.till.tickets == math.ceil(5 * FEE / TICKET_VALUE)


async def test_a_cheap_job_is_paid_with_one_ticket_because_one_is_asked_for(
    tmp_path: Path,
) -> None:
    """It wants a ticket's value on the balance before it works, whatever the job costs."""
    market = Market()
    go = await market.orchestrator()
    # The next job would be covered by what is left, and it would be refused.
    go.models["m"].price = Fraction(10)
    async with serving(go, tmp_path), trading(tmp_path, market) as desk:
        for number in range(3):
            await run(desk, f"r{number}")
            assert await attempts(desk, f"r{number}") == 1
        # Each fee is a part of a wei below what we count.
        assert 0 < theirs(go) - balance(desk, go) < 3


async def test_prices_below_its_three_decimals_come_to_nothing_and_are_not_paid(
    tmp_path: Path,
) -> None:
    market = Market()
    go = await market.orchestrator(Fraction(9, 10_000))
    async with serving(go, tmp_path), trading(tmp_path, market) as desk:
        await run(desk, "r1")
        assert go.till is not None
        assert go.till.debited == go.till.tickets == 0


async def test_a_list_of_floored_prices_is_not_what_is_paid(tmp_path: Path) -> None:
    """Without capabilities it tells whole wei only; the exact price is asked for each model."""
    market = Market()
    go = await market.orchestrator(PRICE + Fraction(1, 3))
    async with serving(go, tmp_path), trading(tmp_path, market) as desk:
        await run(desk, "r1")
        record = await desk.journal.request("r1")
        assert record is not None
        assert go.till is not None
        # Cut to three decimals by them; up to a whole wei by us.
        assert go.till.debited == 4096 * Fraction(5_050_000_336, 1000)
        assert record.fee == math.ceil(go.till.debited)


async def test_busy_costs_neither_balance_nor_standing(tmp_path: Path) -> None:
    """It refuses for capacity before it looks at tickets."""
    market = Market()
    full, other = await market.orchestrator(), await market.orchestrator(PRICE * 3)
    async with (
        serving(full, tmp_path),
        serving(other, tmp_path),
        trading(tmp_path, market) as desk,
    ):
        assert await run(desk, "r1") == full.uri
        left = balance(desk, full)
        assert left == theirs(full) > 0
        full.capacity, full._drift = 0, 3
        assert await run(desk, "r2") == other.uri
        assert balance(desk, full) == theirs(full) == left
        assert failures(desk, full) == 0


async def test_balances_that_it_forgot_are_paid_anew_and_it_is_not_blamed(tmp_path: Path) -> None:
    """After ten idle minutes a balance is gone there; here it is not."""
    market = Market()
    go = await market.orchestrator()
    async with serving(go, tmp_path), trading(tmp_path, market) as desk:
        # Eight at once each pay a part of a ticket too much: together that is enough for a job.
        go.capacity, go.job_seconds = 8, 0.05
        await asyncio.gather(*(run(desk, f"r{number}") for number in range(8)))
        assert balance(desk, go) == theirs(go) >= FEE
        market.now += IDLE_SECONDS + 1
        await run(desk, "after a while")
        assert await attempts(desk, "after a while") == 2
        assert failures(desk, go) == 0
        assert balance(desk, go) == theirs(go)


async def test_after_its_restart_every_job_is_delivered_and_it_is_not_blamed(
    tmp_path: Path,
) -> None:
    """Tokens, quotes and balances are of one process: ours of it is lost, and paid once more."""
    market = Market()
    go = await market.orchestrator()
    async with (
        serving(go, tmp_path),
        trading(tmp_path, market, refreshing=seldom(), loses_balances=True) as desk,
    ):
        await run(desk, "r1")
        lost = balance(desk, go)
        go.restart()
        for number in range(8):
            await run(desk, f"s{number}")
            assert await attempts(desk, f"s{number}") <= 3
        assert failures(desk, go) == 0
        assert balance(desk, go) - theirs(go) <= lost


def _run_ahead(go: GoOrchestrator) -> None:
    """Its view of L1 is ahead of ours by as much as a quote lives."""
    assert go.till is not None
    go.till.head = replace(go.till.head, l1_block=go.till.head.l1_block + LIFETIME_BLOCKS)


async def test_a_quote_that_expired_on_the_way_is_renewed_and_keeps_the_balance(
    tmp_path: Path,
) -> None:
    """`TicketParams expired`: nothing of the payment was credited, and nothing else was touched."""
    market = Market()
    go = await market.orchestrator()
    async with (
        serving(go, tmp_path),
        trading(tmp_path, market, refreshing=seldom()) as desk,
    ):
        await run(desk, "r1")
        left = theirs(go)
        assert left > 0
        assert go.till is not None
        _run_ahead(go)
        tickets = go.till.tickets
        await run(desk, "r2")
        assert go.till.tickets - tickets == math.ceil((FEE - left) / TICKET_VALUE)
        assert balance(desk, go) == theirs(go)
        assert failures(desk, go) == 0


async def test_nonces_that_it_has_seen_are_no_fault(tmp_path: Path) -> None:
    """Another process of ours used the quote up: the errors stick to the whole payment."""
    market = Market()
    go = await market.orchestrator(capacity=64)
    async with (
        serving(go, tmp_path),
        trading(tmp_path, market, refreshing=seldom()) as desk,
    ):
        await run(desk, "r1")
        assert go.till is not None
        offer = desk.directory.offer(go.uri)
        reply = None if offer is None else offer.models[ModelId("m")].reply
        assert reply is not None
        assert reply.ticket_params is not None
        hash_ = decode_ticket_params(reply.ticket_params).recipient_rand_hash
        go.till._nonces.setdefault(hash_, set()).update(range(5, 600))
        go.till._nonces[hash_].add(2)
        await run(desk, "r2")
        assert await attempts(desk, "r2") == 2
        assert failures(desk, go) == 0
        assert balance(desk, go) <= theirs(go)


async def test_what_the_runner_calls_a_400_keeps_the_credit(tmp_path: Path) -> None:
    market = Market()
    go = await market.orchestrator()
    async with serving(go, tmp_path), trading(tmp_path, market) as desk:
        go.failures.append("text-to-image container returned 400: the prompt is too long")
        with pytest.raises(ProblemError, match="the prompt is too long"):
            await run(desk, "r1")
        assert balance(desk, go) == theirs(go) > FEE
        await run(desk, "r2")
        assert go.till is not None
        assert go.till.tickets == 3, "those of the first job paid for the second"


async def test_what_a_worker_failed_at_is_not_charged(tmp_path: Path) -> None:
    """What it holds of ours after that nobody tells us, so that we do not count on it."""
    market = Market()
    go = await market.orchestrator()
    async with serving(go, tmp_path), trading(tmp_path, market) as desk:
        go.failures.append("CUDA out of memory")
        with pytest.raises(ProblemError, match="CUDA out of memory"):
            await run(desk, "r1")
        assert theirs(go) > 0


async def test_fifty_at_once_go_as_far_below_nothing_as_it_lets_them_and_pay_it_back(
    tmp_path: Path,
) -> None:
    """Its debits may leave less than nothing; our own count keeps every job paid for."""
    market = Market()
    go = await market.orchestrator(capacity=64, job_seconds=0.01)
    async with serving(go, tmp_path), trading(tmp_path, market) as desk:
        await asyncio.gather(*(run(desk, f"r{number}") for number in range(50)))
        assert theirs(go) >= 0
        assert balance(desk, go) == theirs(go)


async def test_one_that_finds_our_reserve_too_small_is_passed_over_and_explained(
    tmp_path: Path,
) -> None:
    market = Market()
    go = await market.orchestrator()
    assert go.till is not None
    go.till.ticket_value = 10 * ETHER
    async with serving(go, tmp_path), trading(tmp_path, market) as desk:
        with pytest.raises(ProblemError, match="insufficient sender reserve"):
            await run(desk, "r1")
        assert not go.seen
        assert failures(desk, go) == 0
        go.till.ticket_value = TICKET_VALUE
        await until(lambda: not desk.directory.states()[0].problem)
        await run(desk, "r2")


def seldom() -> Refreshing:
    """Quotes are not renewed by themselves."""
    return Refreshing(interval=60.0, busy_interval=60.0, least_interval=0.0)


async def test_one_that_would_quote_a_sure_win_is_not_paid(tmp_path: Path) -> None:
    """`-maxFaceValue` at a ticket's value makes every ticket win: payers refuse that."""
    market = Market()
    go = await market.orchestrator()
    assert go.till is not None
    go.till.max_face_value = TICKET_VALUE
    async with serving(go, tmp_path), trading(tmp_path, market) as desk:
        with pytest.raises(ProblemError):
            await run(desk, "r1")
        assert not go.seen


async def test_a_job_of_hundreds_of_its_small_tickets_is_bought(tmp_path: Path) -> None:
    """512 x 512 at 5,050,000 wei per pixel are 166 tickets of 8 gwei, the value that it has by default."""
    market = Market()
    go = await market.orchestrator(Fraction(18_000_000))
    async with serving(go, tmp_path), trading(tmp_path, market) as desk:
        await run(desk, "r1", width=512, height=512)
        assert go.till is not None
        assert go.till.tickets == 596
        assert balance(desk, go) == theirs(go)
