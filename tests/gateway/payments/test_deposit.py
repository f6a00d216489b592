"""What stands behind our tickets."""

import asyncio

import pytest
from structlog.testing import capture_logs
from typing_extensions import override

from gateway.payments.deposit import DepositWatch, Thresholds
from network.chain.model import ChainUnavailableError, Head
from network.chain.watch import ChainWatch
from network.units import Address, Wei
from tests.network.chain.fake_chain import FakeChain

ACCOUNT = Address(b"\x0a" * 20)


class Clock:
    """Stands still until told."""

    at = 0.0

    def now(self) -> float:
        return self.at

    def monotonic(self) -> float:
        return self.at


class SlowChain(FakeChain):
    """Others may ask while it answers."""

    @override
    async def head(self) -> Head:
        await asyncio.sleep(0.01)
        return await super().head()


async def opened(
    thresholds: Thresholds = Thresholds(),  # noqa: B008
) -> tuple[FakeChain, ChainWatch, DepositWatch, Clock]:
    clock = Clock()
    chain = FakeChain(clock)
    chain.fund(ACCOUNT, Wei(100), Wei(50))
    watch = ChainWatch(chain, clock)
    deposit = DepositWatch(watch, ACCOUNT, thresholds)
    await reread(watch, deposit)
    return chain, watch, deposit, clock


async def reread(watch: ChainWatch, deposit: DepositWatch) -> None:
    await watch.refresh()
    await deposit.refresh()


async def test_funds_are_those_of_the_account() -> None:
    _, _, deposit, _ = await opened()
    assert (deposit.funds.deposit, deposit.funds.reserve) == (100, 50)
    assert deposit.problem() == ""


async def test_an_account_without_funds_pays_nobody() -> None:
    chain, watch, deposit, _ = await opened()
    chain.funds[ACCOUNT].deposit = 0
    await reread(watch, deposit)
    assert deposit.problem() == "the deposit is empty"
    chain.funds[ACCOUNT].deposit, chain.funds[ACCOUNT].reserve = 1, 0
    await reread(watch, deposit)
    assert "the reserve is empty" in deposit.problem()


async def test_case_12_an_unlock_ends_payments_a_round_before_the_funds_can_be_gone() -> None:
    chain, watch, deposit, _ = await opened()
    chain.unlock(ACCOUNT)
    await reread(watch, deposit)
    # Withdrawn from two rounds on; a ticket of this round is good until then.
    assert deposit.problem() == ""
    chain.next_round()
    await reread(watch, deposit)
    assert "until the unlock is cancelled" in deposit.problem()
    chain.fund(ACCOUNT, Wei(1), Wei(0))
    await reread(watch, deposit)
    assert deposit.problem() == ""


async def test_case_12_a_refund_by_a_third_party_leaves_the_account_unlocked() -> None:
    chain, watch, deposit, _ = await opened()
    chain.unlock(ACCOUNT)
    chain.next_round(2)
    chain.withdraw(ACCOUNT)
    chain.funds[ACCOUNT].deposit = chain.funds[ACCOUNT].reserve = 100
    await reread(watch, deposit)
    assert "unlock in round" in deposit.problem()


async def test_case_31_a_chain_that_stands_still_is_not_acted_on() -> None:
    chain, watch, deposit, clock = await opened()
    chain.problem = ChainUnavailableError("down")
    clock.at = 299.0
    assert deposit.problem() == ""
    clock.at = 301.0
    assert "301 s ago" in deposit.problem()
    with pytest.raises(ChainUnavailableError):
        _ = deposit.now
    chain.problem = None
    await reread(watch, deposit)
    assert deposit.problem() == ""


async def test_quotes_of_this_round_and_the_last_are_known() -> None:
    chain, watch, deposit, _ = await opened()
    first = deposit.now.rounds
    chain.next_round()
    await reread(watch, deposit)
    second = deposit.now.rounds
    assert len(second) == 2
    assert set(first) < set(second)
    chain.next_round()
    await reread(watch, deposit)
    assert not set(first) & set(deposit.now.rounds)


async def test_many_who_look_again_share_one_look() -> None:
    chain = SlowChain(Clock())
    watch = ChainWatch(chain, chain.clock)
    deposit = DepositWatch(watch, ACCOUNT, Thresholds())
    await reread(watch, deposit)
    heads: list[int] = []
    watch.subscribe(lambda head: heads.append(head.l1_block))
    chain.mine()
    await asyncio.gather(*(deposit.look_again() for _ in range(20)))
    assert heads == [chain.l1_block]
    assert deposit.now.l1_block == chain.l1_block
    await deposit.look_again()
    assert len(heads) == 2


async def test_the_operator_is_warned_once_for_each_thing() -> None:
    with capture_logs() as logs:
        chain, watch, deposit, _ = await opened(Thresholds(Wei(101), Wei(50)))
        await reread(watch, deposit)
        chain.unlock(ACCOUNT)
        await reread(watch, deposit)
        chain.fund(ACCOUNT, Wei(10), Wei(0))
        await reread(watch, deposit)
        chain.funds[ACCOUNT].deposit = 1
        await reread(watch, deposit)
    warned = [line["event"] for line in logs if line["log_level"] == "warning"]
    assert warned == ["payments_low_deposit", "payments_unlocking", "payments_low_deposit"]
