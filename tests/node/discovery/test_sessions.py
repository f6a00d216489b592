from dataclasses import replace

import pytest

from network.units import Address
from node.discovery.sessions import LIFETIME_SECONDS, Sessions, TokenFault

SENDER = Address(b"g" * 20)
NOW = 1_790_000_000.0


@pytest.mark.parametrize("bound", [True, False])
def test_a_token_is_good_for_its_session_until_it_expires(*, bound: bool) -> None:
    sessions = Sessions(b"s" * 32, bound)
    token = sessions.issue(SENDER, NOW, "a-session-of-ours")
    assert token.session_id == "a-session-of-ours"
    assert sessions.check(token, SENDER, NOW + LIFETIME_SECONDS) is None
    assert sessions.check(token, SENDER, NOW + LIFETIME_SECONDS + 1) is TokenFault.EXPIRED
    other = replace(token, session_id="another-session")
    assert sessions.check(other, SENDER, NOW) is TokenFault.INVALID


def test_no_digit_of_a_session_can_be_moved_into_its_expiration() -> None:
    """The HMAC covers both without a boundary between them."""
    sessions = Sessions(b"s" * 32, bound=False)
    token = sessions.issue(None, NOW)
    *kept, last = token.session_id.encode()
    for_ever = last << 32 | token.expiration
    moved = replace(token, session_id=bytes(kept).decode(), expiration=for_ever)
    assert sessions.check(moved, None, NOW) is TokenFault.INVALID


def test_a_clock_put_back_a_little_spoils_no_token() -> None:
    sessions = Sessions(b"s" * 32, bound=False)
    assert sessions.check(sessions.issue(None, NOW), None, NOW - 300) is None
