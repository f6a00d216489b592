"""Sessions of one call: nothing is remembered of them, and nobody makes one up."""

import asyncio

import pytest
from hypothesis import given
from hypothesis import strategies as st

from network.runtime.clock import SystemClock
from network.units import Address, Wei
from node.apps.challenges import CallSessions, Challenger, subject_of
from node.apps.refusal import Refusal
from node.discovery.sessions import LIFETIME_SECONDS, Sessions
from node.payments.quoting import NoQuote

PAYER = Address(b"p" * 20)
CALLS = CallSessions(b"s" * 32)
SUBJECT = subject_of("route", b"a body")
NOW = 1_790_000_000.0


@given(payer=st.binary(min_size=20, max_size=20).map(Address), cost=st.integers(0, 2**63 - 1))
def test_a_session_says_what_its_call_costs_to_its_payer_alone(payer: Address, cost: int) -> None:
    session_id = CALLS.new(payer, Wei(cost), SUBJECT, NOW)
    assert len(session_id) <= 64
    assert session_id.isalnum()
    session = CALLS.read(session_id, payer, NOW)
    assert session is not None
    assert session.cost == cost
    other = Address(bytes([payer[0] ^ 1]) + payer[1:])
    assert CALLS.read(session_id, other, NOW) is None
    assert CallSessions(b"t" * 32).read(session_id, payer, NOW) is None


@given(route=st.text(max_size=5), body=st.binary(max_size=5))
def test_a_promise_is_for_one_request(route: str, body: bytes) -> None:
    session = CALLS.read(CALLS.new(PAYER, Wei(1), SUBJECT, NOW), PAYER, NOW)
    assert session is not None
    assert session.covers(SUBJECT)
    assert not session.covers(subject_of(route, body))


@given(place=st.integers(0, 63), digit=st.sampled_from("0123456789abcdefX"))
def test_a_session_that_was_changed_is_none_or_promises_nothing(place: int, digit: str) -> None:
    session_id = CALLS.new(PAYER, Wei(2**60), SUBJECT, NOW)
    changed = session_id[:place] + digit + session_id[place + 1 :]
    session = CALLS.read(changed, PAYER, NOW)
    holds = session is not None and session.covers(SUBJECT)
    assert holds == (changed == session_id)
    if session is not None:
        assert session.cost == 2**60


def test_a_session_is_over_after_half_an_hour_however_often_it_is_renewed() -> None:
    session_id = CALLS.new(PAYER, Wei(7), SUBJECT, NOW)
    assert CALLS.read(session_id, PAYER, NOW + LIFETIME_SECONDS) is not None
    assert CALLS.read(session_id, PAYER, NOW + LIFETIME_SECONDS + 1) is None


@pytest.mark.parametrize("session_id", ["", "01234567", "0" * 48, "0" * 49, "0" * 65, "ß" * 60])
def test_what_is_no_session_costs_nothing_to_refuse(session_id: str) -> None:
    assert CALLS.read(session_id, PAYER, 0.0) is None


def test_no_two_sessions_are_alike() -> None:
    assert len({CALLS.new(PAYER, Wei(1), SUBJECT, NOW) for _ in range(100)}) == 100


class Slow:
    """Quotes that wait for a chain."""

    def __init__(self) -> None:
        self.asked = 0
        self.is_there = asyncio.Event()

    def unpayable(self, _cost: Wei) -> str:
        return ""

    async def quote_call(self, _sender: Address, _cost: Wei) -> bytes | NoQuote:
        self.asked += 1
        await self.is_there.wait()
        return NoQuote("insufficient sender reserve")


async def test_strangers_do_not_have_the_chain_asked_without_bound() -> None:
    quotes = Slow()
    sessions = Sessions(b"s" * 32, bound=False)
    challenger = Challenger(quotes, sessions, "https://node", PAYER, SystemClock())
    asking = [
        asyncio.ensure_future(challenger.challenge(PAYER, Wei(number + 1), SUBJECT))
        for number in range(70)
    ]
    await asyncio.sleep(0)
    assert quotes.asked == 64
    quotes.is_there.set()
    found = await asyncio.gather(*asking, return_exceptions=True)
    reasons = [one.reason for one in found if isinstance(one, Refusal)]
    assert reasons == ["no_quote"] * 64 + ["too_many_challenges"] * 6
    with pytest.raises(Refusal, match="insufficient sender reserve"):
        await challenger.challenge(PAYER, Wei(1), SUBJECT)
