"""What an operator may do with the deposit, and in which words it is refused."""

from collections.abc import Callable
from dataclasses import replace

import pytest

from gateway.payments.wallet import (
    Step,
    Wallet,
    WalletRefusedError,
    check_gas,
    plan_cancel_unlock,
    plan_funding,
    plan_unlock,
    plan_withdrawal,
)
from network.chain.model import SenderInfo
from network.units import Address, Wei

ETHER = 10**18
FUNDS = SenderInfo(Wei(ETHER), 0, Wei(2 * ETHER), Wei(0))
WALLET = Wallet(
    account=Address(b"\x01" * 20),
    ether=Wei(5 * ETHER),
    funds=FUNDS,
    current_round=10,
    unlock_period=2,
    is_paused=False,
)
EMPTY = replace(WALLET, funds=SenderInfo(Wei(0), 0, Wei(0), Wei(0)))
UNLOCKING = replace(WALLET, funds=replace(FUNDS, withdraw_round=12))
UNLOCKED = replace(UNLOCKING, current_round=12)


def fund(wallet: Wallet) -> Step:
    return plan_funding(wallet, Wei(ETHER), Wei(ETHER))


@pytest.mark.parametrize(
    ("plan", "wallet", "reason"),
    [
        (fund, replace(WALLET, ether=Wei(ETHER)), "not enough ether: 2 ETH .* has 1 ETH"),
        (lambda w: plan_funding(w, Wei(0), Wei(0)), WALLET, "nothing to fund"),
        (plan_unlock, EMPTY, "sender deposit and reserve are zero"),
        (plan_unlock, UNLOCKING, r"unlock already initiated.*round 12"),
        (plan_cancel_unlock, WALLET, "no unlock request in progress"),
        (plan_withdrawal, EMPTY, "sender deposit and reserve are zero"),
        (plan_withdrawal, WALLET, "no unlock request in progress.*unlock"),
        (plan_withdrawal, UNLOCKING, r"account is locked until round 12 \(now 10\)"),
        (fund, replace(WALLET, is_paused=True), "system is paused"),
        (plan_unlock, replace(WALLET, is_paused=True), "system is paused"),
        (plan_cancel_unlock, replace(UNLOCKING, is_paused=True), "system is paused"),
        (plan_withdrawal, replace(UNLOCKED, is_paused=True), "system is paused"),
    ],
)
def test_a_refusal_names_the_true_reason(
    plan: Callable[[Wallet], Step], wallet: Wallet, reason: str
) -> None:
    with pytest.raises(WalletRefusedError, match=reason):
        plan(wallet)


def test_what_is_allowed_says_what_follows() -> None:
    funding = fund(UNLOCKING)
    assert funding.value == 2 * ETHER
    assert "cancelled" in funding.consequences[0]
    assert fund(EMPTY).consequences == ()
    (missing,) = plan_funding(EMPTY, Wei(1), Wei(0)).consequences
    assert "reserve stays 0" in missing
    (missing,) = plan_funding(EMPTY, Wei(0), Wei(1)).consequences
    assert "deposit stays 0" in missing
    assert "from round 12 on (now 10)" in plan_unlock(WALLET).consequences[0]
    assert "3 ETH" in plan_withdrawal(UNLOCKED).what
    assert plan_cancel_unlock(UNLOCKED).value == 0


def test_the_lock_is_told_in_words() -> None:
    assert WALLET.lock_state.startswith("locked")
    assert UNLOCKING.lock_state == "unlocking: can be withdrawn from round 12 on (now 10)"
    assert UNLOCKED.lock_state.startswith("unlocked since round 12")


def test_gas_counts_towards_what_the_account_must_have() -> None:
    step = fund(WALLET)
    assert check_gas(WALLET, step, 100_000, Wei(10**9)) == 10**14
    tight = replace(WALLET, ether=Wei(2 * ETHER + 10**14))
    assert check_gas(tight, step, 100_000, Wei(10**9)) == 10**14
    with pytest.raises(WalletRefusedError, match="gas may cost"):
        check_gas(replace(tight, ether=Wei(tight.ether - 1)), step, 100_000, Wei(10**9))
