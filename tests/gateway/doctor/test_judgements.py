"""What the gateway's doctor makes of funds and of orchestrators."""

from dataclasses import replace
from fractions import Fraction
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.doctor.funds import Wishes, face_value_of, judge_funds, share_of
from gateway.doctor.orchestrators import judge_orchestrators
from network.chain.model import Head, SenderInfo
from network.findings import Finding, Verdict, worst
from network.payments.pricing import PAYERS_MAX_TICKET_VALUE
from network.payments.tickets import CreationRound
from network.units import Wei

ETHER = 10**18
HEAD = Head(
    l1_block=100,
    current_round=9,
    last_initialized_round=9,
    creation=CreationRound(9, b"\x01" * 32),
    ticket_validity_period=2,
    pool_size=100,
    gas_price=Wei(10**8),
    is_paused=False,
    read_at=0.0,
)
WELL = SenderInfo(Wei(ETHER), 0, Wei(ETHER), Wei(0))
WISHES = Wishes(PAYERS_MAX_TICKET_VALUE, 1, Wei(0), Wei(0))
#: Gas of a redemption at the head's price.
COST = 1_200_000 * 10**8


def funds(info: SenderInfo, wishes: Wishes = WISHES, head: Head = HEAD) -> dict[str, Finding]:
    return {one.what: one for one in judge_funds(info, head, wishes)}


def test_good_funds_are_told_with_each_orchestrators_share() -> None:
    found = funds(WELL)
    assert worst(found.values()) is Verdict.OK
    assert "0.01 ETH for each of 100" in found["reserve"].detail.replace("eth", "ETH")


@pytest.mark.parametrize(
    ("change", "what", "verdict", "words"),
    [
        ({"deposit": Wei(0)}, "deposit", Verdict.FAIL, "empty"),
        ({"reserve_remaining": Wei(0)}, "reserve", Verdict.FAIL, "empty"),
        # A hundredth of it does not pay one redemption.
        (
            {"reserve_remaining": Wei(99 * COST)},
            "reserve",
            Verdict.FAIL,
            "insufficient sender reserve",
        ),
        ({"reserve_remaining": Wei(100 * COST)}, "reserve", Verdict.OK, "for each of 100"),
        ({"deposit": Wei(50 * COST)}, "deposit", Verdict.FAIL, "tickets that pay"),
        ({"withdraw_round": 10}, "unlocking", Verdict.FAIL, "nobody takes our tickets"),
        ({"withdraw_round": 20}, "unlocking", Verdict.WARN, "unlock in round 20; it is 9"),
    ],
)
def test_what_is_wrong_with_funds_is_told(
    change: dict[str, Any], what: str, verdict: Verdict, words: str
) -> None:
    found = funds(replace(WELL, **change))[what]
    assert (found.verdict, words in found.detail) == (verdict, True), found
    assert bool(found.advice) is (verdict is not Verdict.OK)


def test_the_operators_own_thresholds_warn() -> None:
    wishes = replace(WISHES, warn_deposit=Wei(2 * ETHER), warn_reserve=Wei(3 * ETHER))
    found = funds(WELL, wishes)
    assert found["deposit"].verdict is Verdict.WARN
    assert found["reserve"].verdict is Verdict.WARN


def test_a_larger_multiplier_wants_a_larger_deposit() -> None:
    info = replace(WELL, deposit=Wei(150 * COST), reserve_remaining=Wei(100 * 100 * COST))
    assert funds(info)["deposit"].verdict is Verdict.OK
    assert funds(info, replace(WISHES, deposit_multiplier=2))["deposit"].verdict is Verdict.FAIL


def test_an_empty_pool_shares_nothing() -> None:
    head = replace(HEAD, pool_size=0)
    assert share_of(WELL, head) == 0
    assert funds(WELL, head=head)["reserve"].verdict is Verdict.FAIL


AMOUNTS = st.integers(0, 10 * ETHER).map(Wei)


@given(AMOUNTS, AMOUNTS, st.integers(0, 200), st.integers(0, 10**11).map(Wei))
def test_funds_are_well_only_if_tickets_can_be_quoted_and_paid(
    deposit: Wei, reserve: Wei, pool: int, gas_price: Wei
) -> None:
    info = SenderInfo(deposit, 0, reserve, Wei(0))
    head = replace(HEAD, pool_size=pool, gas_price=gas_price)
    if worst(judge_funds(info, head, WISHES)) is Verdict.OK:
        face_value = face_value_of(info, head, WISHES)
        assert face_value is not None
        assert 0 < face_value <= min(deposit, reserve)


def described(
    uri: str = "https://a:1", state: str = "ready", **models: str | None
) -> dict[str, Any]:
    return {
        "uri": uri,
        "state": state,
        "problem": "" if state == "ready" else "no connection",
        "last_fault": "",
        "models": [
            {"id": name, "price": price, "warm": True, "free": 1}
            for name, price in (models or {"m": "5/2"}).items()
        ],
    }


DOWN = {**described("https://b:1", "unreachable"), "models": []}


@pytest.mark.parametrize(
    ("found", "max_price", "verdict", "words"),
    [
        ([described()], None, Verdict.OK, "1 of 1 may be bought, from 2.5 wei"),
        ([described(), described("https://b:1", m="9")], Fraction(5), Verdict.OK, "1 of 2"),
        ([described()], Fraction(5, 2), Verdict.OK, "1 of 1"),
        ([described()], Fraction(2), Verdict.FAIL, "everybody is excluded"),
        ([described(x="1")], None, Verdict.FAIL, "none; there are x"),
        ([described(m=None)], Fraction(1), Verdict.OK, "none of which names a price"),
        ([DOWN], None, Verdict.FAIL, "none"),
    ],
)
def test_the_default_model_can_be_bought_or_not(
    found: list[dict[str, Any]], max_price: Fraction | None, verdict: Verdict, words: str
) -> None:
    last = judge_orchestrators(found, "m", max_price)[-1]
    assert (last.verdict, words in last.detail) == (verdict, True), last


def test_one_that_is_down_matters_more_where_it_is_the_only_one() -> None:
    alone = judge_orchestrators([DOWN], "m", None)[0]
    beside = judge_orchestrators([DOWN, described()], "m", None)[0]
    assert (alone.verdict, beside.verdict) == (Verdict.FAIL, Verdict.WARN)
    assert "no connection" in alone.detail


def test_cold_models_are_a_warning() -> None:
    cold = described()
    cold["models"][0]["warm"] = False
    assert judge_orchestrators([cold], "m", None)[-1].verdict is Verdict.WARN


def test_nobody_to_buy_from_is_a_failure() -> None:
    (found,) = judge_orchestrators([], "m", None)
    assert found.verdict is Verdict.FAIL
