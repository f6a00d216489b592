"""Which step comes next for an orchestrator's account, and why none can."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from network.chain.contracts import UnbondingLock
from network.units import Address, Wei
from node.payments.registration import (
    Account,
    Goal,
    NotPossibleError,
    Registration,
    activation,
    announcing,
    bonding,
    check_ether,
    format_lpt,
    parse_coins,
    rewarding,
    unbonding,
    withdrawing_fees,
    withdrawing_stake,
)

LPT = 10**18
ME = Address(b"\x01" * 20)
OTHER = Address(b"\x02" * 20)
NOBODY = Address(bytes(20))
NEW = Account(
    address=ME,
    ether=Wei(LPT),
    lpt=Wei(100 * LPT),
    allowance=Wei(0),
    bonded=Wei(0),
    delegate=NOBODY,
    fees=Wei(0),
    is_active=False,
    reward_cut=0,
    fee_share=0,
    last_reward_round=0,
    ai_service_uri="",
    service_uri="",
    current_round=9,
    is_round_initialized=True,
    is_round_locked=False,
    is_paused=False,
)
ACTIVE = replace(NEW, bonded=Wei(50 * LPT), delegate=ME, is_active=True, fees=Wei(LPT))
WISH = Registration(Wei(50 * LPT), 100_000, 200_000, "https://node.example:8936")


def did(account: Account, name: str) -> Account:
    """The account after a step, as the contracts would leave it."""
    match name:
        case "approve":
            return replace(account, allowance=Wei(50 * LPT - account.bonded))
        case "bond":
            lpt = Wei(account.lpt - account.allowance)
            bonded = Wei(account.bonded + account.allowance)
            return replace(account, lpt=lpt, bonded=bonded, delegate=ME, allowance=Wei(0))
        case "service-uri":
            return replace(account, ai_service_uri=WISH.service_uri or "")
        case "transcoder":
            return replace(account, reward_cut=100_000, fee_share=200_000)
        case _:
            raise AssertionError(name)


def names(account: Account, goal: Goal) -> list[str]:
    found: list[str] = []
    while (step := goal(account)) is not None:
        found.append(step.name)
        account = did(account, step.name)
    return found


def test_activation_takes_each_step_once_and_skips_what_is_done() -> None:
    assert names(NEW, activation(WISH)) == ["approve", "bond", "service-uri", "transcoder"]
    half = replace(NEW, allowance=Wei(50 * LPT), ai_service_uri=WISH.service_uri or "")
    assert names(half, activation(WISH)) == ["bond", "transcoder"]
    assert names(ACTIVE, activation(Registration())) == []


@given(bonded=st.integers(0, 50), allowance=st.integers(0, 60), stops=st.integers(0, 4))
def test_activation_goes_on_where_it_was_cut_off(bonded: int, allowance: int, stops: int) -> None:
    account = replace(
        NEW,
        bonded=Wei(bonded * LPT),
        delegate=ME if bonded else NOBODY,
        allowance=Wei(allowance * LPT),
    )
    for _ in range(stops):
        step = activation(WISH)(account)
        if step is not None and not (step.name == "bond" and account.allowance > 50 * LPT):
            account = did(account, step.name)
    assert len(names(replace(account, allowance=Wei(0)), activation(WISH))) <= 4


@pytest.mark.parametrize(
    ("account", "goal", "why"),
    [
        (replace(NEW, lpt=Wei(LPT)), activation(WISH), "not enough LPT: 50 LPT .* has 1 LPT"),
        (NEW, activation(Registration()), "say how much LPT"),
        (replace(NEW, delegate=OTHER, bonded=Wei(1)), bonding(Wei(2)), "unbond it there first"),
        (replace(NEW, is_round_initialized=False), activation(WISH), "not initialised"),
        (replace(NEW, is_paused=True), activation(WISH), "paused"),
        (replace(ACTIVE, is_round_locked=True), activation(Registration(fee_share=1)), "locked"),
        (ACTIVE, activation(Registration(fee_share=1)), "limner-node reward"),
        (NEW, rewarding, "not active"),
        (ACTIVE, unbonding(Wei(51 * LPT), Wei(50 * LPT)), "50 LPT are bonded"),
        (ACTIVE, withdrawing_fees(Wei(2 * LPT), ME, Wei(LPT)), "redeemed fees are 1 ETH"),
        (ACTIVE, withdrawing_fees(Wei(1), NOBODY, Wei(LPT)), "null address"),
        (
            replace(ACTIVE, locks={3: UnbondingLock(Wei(1), 12)}),
            withdrawing_stake(3),
            "opens in round 12; this is round 9",
        ),
    ],
)
def test_the_true_reason_is_told_before_anything_is_sent(
    account: Account, goal: Goal, why: str
) -> None:
    with pytest.raises(NotPossibleError, match=why):
        goal(account)


def test_what_is_done_is_not_done_again() -> None:
    assert rewarding(replace(ACTIVE, last_reward_round=9)) is None
    assert announcing("https://x")(replace(ACTIVE, ai_service_uri="https://x")) is None
    assert unbonding(Wei(LPT), Wei(51 * LPT))(ACTIVE) is None
    assert withdrawing_fees(Wei(LPT), ME, Wei(2 * LPT))(ACTIVE) is None
    assert withdrawing_stake(0)(ACTIVE) is None


def test_an_account_without_ether_is_told_so() -> None:
    check_ether(NEW, Wei(LPT))
    with pytest.raises(NotPossibleError, match="not enough ether for gas"):
        check_ether(NEW, Wei(LPT + 1))


@given(st.integers(0, 10**27))
def test_amounts_are_read_as_they_are_written(amount: int) -> None:
    text = format_lpt(Wei(amount)).removesuffix(" LPT")
    assert parse_coins(text, "LPT") == amount


@pytest.mark.parametrize("text", ["", ".", "-1", "1e3", "0.0000000000000000001", "1,5", "\u0661"])
def test_what_is_no_amount_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="no amount of LPT"):
        parse_coins(text, "LPT")
