import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from fractions import Fraction
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from network.errors import DatabaseError
from network.runtime.clock import SystemClock
from network.runtime.database import Database, open_database
from network.runtime.inserting import Row
from network.units import Address, JobId, ModelId, Pixels, Wei
from node.accounting.journal import (
    MIGRATIONS,
    InsufficientBalanceError,
    Journal,
    PaymentRefusedError,
)
from node.accounting.ledger import Ledger
from node.accounting.model import Credit, Ending, Job, Outcome, Receipt
from node.accounting.pricing import Declined, PriceList, Quote, judge_offer
from node.accounting.report import Filter, JobLine, read_earnings, read_jobs
from node.accounting.tables import ticket_nonces

ALICE = Address(b"\xaa" * 20)
BOB = Address(b"\xbb" * 20)
MODEL = ModelId("limner/shapes")
DELIVERED = Ending(Outcome.DELIVERED, waited_seconds=0.5, run_seconds=1.5)
FAILED = Ending(Outcome.FAILED, "out_of_memory")


def job(name: str, payer: Address = ALICE, fee: int = 10) -> Job:
    return Job(
        job_id=JobId(name),
        attempt_id=f"attempt-{name}",
        payer=payer,
        model_id=MODEL,
        width=64,
        height=64,
        images=1,
        steps=2,
        pixels=Pixels(4096),
        price=Fraction(fee, 4096),
        fee=Wei(fee),
    )


@asynccontextmanager
async def books(
    folder: Path, overdraft: Wei | None = None
) -> AsyncIterator[tuple[Journal, Database]]:
    url = f"sqlite:///{folder / 'node.sqlite'}"
    async with open_database(url, MIGRATIONS, synchronous="NORMAL") as database:
        yield Journal(database, Ledger(overdraft), SystemClock()), database


async def lines(database: Database, wanted: Filter | None = None) -> dict[str, JobLine]:
    found = await database.read(lambda c: read_jobs(c, wanted or Filter(), 1000))
    return {line.job_id: line for line in found}


async def test_a_delivered_job_is_written_with_what_it_cost(tmp_path: Path) -> None:
    async with books(tmp_path) as (journal, database):
        await journal.reserve(job("a", fee=2**80))
        assert (await lines(database))["a"].state == "open"
        await journal.settle(job("a", fee=2**80), DELIVERED)
        line = (await lines(database))["a"]
        assert (line.state, line.fee, line.quoted) == ("delivered", 2**80, 2**80)
        assert (line.waited_seconds, line.run_seconds) == (0.5, 1.5)
        assert line.payer == "0x" + "aa" * 20


async def test_whatever_is_repeated_a_job_ends_once(tmp_path: Path) -> None:
    async with books(tmp_path) as (journal, database):
        await journal.reserve(job("a"))
        await asyncio.gather(*(journal.settle(job("a"), DELIVERED) for _ in range(5)))
        # A cancellation that arrives after the settlement finds it done.
        assert await journal.release(JobId("a"), FAILED) == DELIVERED
        assert (await lines(database))["a"].fee == 10
        assert journal.earned == 10
        await journal.reserve(job("b"))
        await asyncio.gather(*(journal.release(JobId("b"), FAILED) for _ in range(5)))
        await journal.settle(job("b"), DELIVERED)
        line = (await lines(database))["b"]
        assert (line.state, line.reason, line.fee) == ("failed", "out_of_memory", 0)
        assert (journal.earned, journal.held) == (10, 0)


async def test_what_a_dead_process_had_reserved_is_released_at_the_next_start(
    tmp_path: Path,
) -> None:
    async with books(tmp_path) as (journal, _):
        await journal.reserve(job("done"))
        await journal.settle(job("done"), DELIVERED)
        await journal.reserve(job("open"))
    async with books(tmp_path) as (journal, database):
        assert await journal.close_interrupted() == 1
        assert await journal.close_interrupted() == 0
        found = await lines(database)
        assert (found["open"].state, found["open"].fee) == ("interrupted", 0)
        assert (found["done"].state, found["done"].fee) == ("delivered", 10)


async def test_a_payer_without_credit_is_refused_and_nothing_is_written(tmp_path: Path) -> None:
    async with books(tmp_path, overdraft=Wei(15)) as (journal, database):
        await journal.reserve(job("a"))
        with pytest.raises(InsufficientBalanceError, match="5 wei are missing"):
            await journal.reserve(job("b"))
        assert list(await lines(database)) == ["a"]
        await journal.release(JobId("a"), FAILED)
        await journal.reserve(job("b"))


async def test_a_reservation_that_cannot_be_written_holds_nothing(tmp_path: Path) -> None:
    async with books(tmp_path) as (journal, database):
        await database.close()
        with pytest.raises(DatabaseError):
            await journal.reserve(job("a"))
        assert journal.held == 0
        assert await journal.release(JobId("a"), FAILED) == FAILED


async def test_earnings_balance_with_the_jobs_to_the_wei(tmp_path: Path) -> None:
    async with books(tmp_path) as (journal, database):
        for number in range(60):
            entry = job(f"job-{number}", (ALICE, BOB)[number % 2], fee=10**20 + number)
            await journal.reserve(entry)
            if number % 3:
                await journal.settle(entry, DELIVERED)
            else:
                await journal.release(entry.job_id, FAILED)
        found = await lines(database)
        charged = sum(line.fee for line in found.values())
        assert charged == journal.earned
        for by in ("day", "model", "payer"):
            earnings = await database.read(lambda c, by=by: read_earnings(c, Filter(), by))  # type: ignore[misc]
            assert earnings.total.earned == charged
            assert sum(line.earned for line in earnings.lines) == charged
            assert (earnings.total.jobs, earnings.total.delivered) == (60, 40)
        bob = await lines(database, Filter(payer="0x" + "BB" * 20, state="failed"))
        assert len(bob) == 10
        assert not await lines(database, Filter(until=0.0))
        assert not await lines(database, Filter(state="open"))


@given(
    price=st.fractions(0, 10**12),
    expected=st.one_of(st.none(), st.fractions(0, 10**12)),
    pixels=st.integers(1, 2**24),
    may_omit=st.booleans(),
)
def test_nobody_pays_less_or_more_than_the_price_list_says(
    price: Fraction,
    expected: Fraction | None,
    pixels: int,
    may_omit: bool,  # noqa: FBT001
) -> None:
    quote = PriceList(price).quote(MODEL, ALICE, Pixels(pixels))
    assert quote.fee >= pixels * price > quote.fee - 1
    verdict = judge_offer(quote, expected, may_omit=may_omit, model_id=MODEL)
    accepted = (may_omit or price == 0) if expected is None else expected >= price
    assert isinstance(verdict, Quote if accepted else Declined)
    if accepted:
        assert verdict == quote


def test_a_gateways_own_price_goes_before_the_models_and_that_before_the_default() -> None:
    prices = PriceList(Fraction(1), {MODEL: Fraction(2)}, {(MODEL, ALICE): Fraction(3)})
    assert prices.price(ModelId("other"), ALICE) == 1
    assert prices.price(MODEL, BOB) == 2
    assert prices.price(MODEL, ALICE) == 3
    with pytest.raises(ValueError, match="has no price"):
        prices.quote(MODEL, ALICE, Pixels(0))


def credit(amount: Fraction, *, refusal: str = "", nonces: Sequence[int] = (1,)) -> Credit:
    rows: list[Row] = [
        (ticket_nonces, {"recipient_rand_hash": "ab", "nonce": n, "expiration_block": 9})
        for n in nonces
    ]
    return Credit(ALICE, amount, len(rows), tuple(rows), refusal)


async def test_what_a_payment_brings_is_on_disk_together_with_its_job(tmp_path: Path) -> None:
    async with books(tmp_path, overdraft=Wei(0)) as (journal, _):
        await journal.reserve(job("a"), credit(Fraction(41, 4)))
        receipt = await journal.receipt("attempt-a")
        assert receipt == Receipt(Fraction(41, 4), Wei(0), "open")
        await journal.settle(job("a"), DELIVERED)
    async with books(tmp_path, overdraft=Wei(0)) as (journal, _):
        await journal.restore_accounts()
        assert journal.earned == 0
        with pytest.raises(InsufficientBalanceError, match="10 wei are missing"):
            await journal.reserve(job("b"), credit(Fraction(0), nonces=()))
        await journal.reserve(job("c"), credit(Fraction(39, 4), nonces=[2]))
        assert await journal.recent_attempts(9) == ["attempt-a", "attempt-c"]


async def test_a_refused_payment_keeps_what_it_brought_and_nothing_else_is_written(
    tmp_path: Path,
) -> None:
    async with books(tmp_path, overdraft=Wei(0)) as (journal, database):
        with pytest.raises(PaymentRefusedError, match="TicketParams expired"):
            await journal.reserve(job("a"), credit(Fraction(12), refusal="TicketParams expired"))
        assert await journal.receipt("attempt-a") == Receipt(Fraction(12), Wei(0), "refused")
        # Anybody can send payments that are none: they do not fill the disk.
        with pytest.raises(PaymentRefusedError):
            await journal.reserve(job("b"), credit(Fraction(0), refusal="no", nonces=()))
        assert await journal.receipt("attempt-b") is None
        await journal.reserve(job("c"), credit(Fraction(0), nonces=()))
        assert list(await lines(database)) == ["c"]


async def test_case_2_the_books_themselves_take_no_ticket_twice(tmp_path: Path) -> None:
    """Whatever the process in front of them forgot: all of a payment is written, or none."""
    async with books(tmp_path, overdraft=Wei(0)) as (journal, database):
        await journal.reserve(job("a"), credit(Fraction(10)))
        with pytest.raises(DatabaseError):
            await journal.reserve(job("b"), credit(Fraction(10), nonces=[2, 1]))
        assert await journal.receipt("attempt-b") is None
        assert list(await lines(database)) == ["a"]
        with pytest.raises(InsufficientBalanceError, match="10 wei are missing"):
            await journal.reserve(job("c"), credit(Fraction(0), nonces=()))
        await journal.reserve(job("d"), credit(Fraction(10), nonces=[2]))
