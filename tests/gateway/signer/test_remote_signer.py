"""A gateway without a key: it pays through a signer, over real HTTP."""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace
from fractions import Fraction

import pytest
from aiohttp import web
from hypothesis import given
from hypothesis import strategies as st

from gateway.payments.remote_signer import (
    PriceExceededError,
    RefreshNeededError,
    RemoteSigner,
    RemoteSignerError,
    pixels_to_name,
)
from gateway.signer.desk import PriceCaps
from network.capabilities import job_capabilities
from network.identity import verify_session_request
from network.payments.pricing import tickets_needed
from network.units import Address, ModelId, Wei
from network.wire.codec import AuthToken
from network.wire.headers import verify_segment
from tests.gateway.signer.signing_desk import (
    BLOCK,
    INFO,
    NOW,
    SIGNER,
    Desk,
    quoting,
    signing_desk,
    ticket_params,
)

MODEL = ModelId("m")
NEED = job_capabilities(MODEL, "0.9.1")


@pytest.fixture
async def desk() -> AsyncIterator[Desk]:
    async with signing_desk() as served:
        yield served


@pytest.fixture
async def remote(desk: Desk) -> RemoteSigner:
    return await RemoteSigner.open(desk.client, desk.url)


async def nonces(remote: RemoteSigner, count: int, info: object = INFO) -> list[int]:
    signed = await remote.sign(info, MODEL, NEED, count)  # type: ignore[arg-type]
    return [ticket.nonce for ticket in signed.payment.tickets]


async def test_it_proves_the_signers_account(remote: RemoteSigner) -> None:
    assert remote.address == SIGNER.address
    verify_session_request(remote.address, remote.session_signature)


async def test_it_makes_just_the_tickets_that_are_due(remote: RemoteSigner) -> None:
    taken = 0
    for count in (1, 3, 1, 2, 7, 1):
        assert await nonces(remote, count) == list(range(taken + 1, taken + count + 1))
        taken += count


async def test_a_new_quote_begins_with_nonce_1_and_another_value(remote: RemoteSigner) -> None:
    assert await nonces(remote, 2) == [1, 2]
    other = quoting(ticket_params(ev=777, rand=11), price=Fraction(7, 9))
    assert await nonces(remote, 3, other) == [1, 2, 3]
    assert await nonces(remote, 1, other) == [4]


async def test_models_of_very_different_prices_are_paid_side_by_side(remote: RemoteSigner) -> None:
    """A signer refuses a price that more than doubles in one session; each quote has its own."""
    dear = quoting(ticket_params(ev=10**9, face_value=10**15, rand=11), price=Fraction(10**6))
    for round_ in range(3):
        assert await nonces(remote, 1) == [round_ + 1]
        assert await nonces(remote, 2, dear) == [2 * round_ + 1, 2 * round_ + 2]


async def test_jobs_at_once_never_share_a_nonce(remote: RemoteSigner) -> None:
    """Case 2: two payments of one quote that overlap would be refused as replays."""
    found = await asyncio.gather(*(nonces(remote, 1 + number % 3) for number in range(12)))
    flat = sorted(nonce for some in found for nonce in some)
    assert flat == list(range(1, len(flat) + 1))


async def test_credentials_are_for_the_model_and_good_for_later_sessions(
    remote: RemoteSigner,
) -> None:
    assert remote.credentials(INFO, MODEL) is None
    signed = await remote.sign(INFO, MODEL, NEED, 1)
    verify_segment(signed.credentials, SIGNER.address)
    assert signed.credentials.manifest_id == b"27_m"
    assert signed.credentials.capabilities == NEED
    later = replace(INFO, auth_token=AuthToken(b"u" * 32, "89abcdef", int(NOW) + 60))
    known = remote.credentials(later, MODEL)
    assert known is not None
    verify_segment(known, SIGNER.address)
    assert known.auth_token == later.auth_token


async def test_the_signers_statuses_say_what_to_do(desk: Desk, remote: RemoteSigner) -> None:
    with pytest.raises(RefreshNeededError, match="TicketParams expired"):
        await remote.sign(quoting(ticket_params(expiration_block=BLOCK)), MODEL, NEED, 1)
    await remote.sign(INFO, MODEL, NEED, 1)
    with pytest.raises(PriceExceededError, match="more than doubled"):
        await remote.sign(replace(INFO, price=Fraction(2)), MODEL, NEED, 1)
    desk.outlook.active.clear()
    with pytest.raises(RemoteSignerError, match="not an active orchestrator"):
        await remote.sign(INFO, MODEL, NEED, 1)
    with pytest.raises(RemoteSignerError, match="no price"):
        await remote.sign(replace(INFO, ticket_params=None), MODEL, NEED, 1)


async def test_a_refused_call_takes_no_nonce(desk: Desk, remote: RemoteSigner) -> None:
    await remote.sign(INFO, MODEL, NEED, 2)
    deposit = desk.outlook.sender
    desk.outlook.sender = replace(deposit, deposit=Wei(0))
    with pytest.raises(RemoteSignerError, match="deposit"):
        await remote.sign(INFO, MODEL, NEED, 1)
    desk.outlook.sender = deposit
    assert await nonces(remote, 1) == [3]


async def test_a_price_cap_of_the_signer_is_told() -> None:
    async with signing_desk(caps=PriceCaps(per_pixel=Fraction(1, 2))) as desk:
        remote = await RemoteSigner.open(desk.client, desk.url)
        with pytest.raises(PriceExceededError, match="exceeds the maximum of 1/2 wei"):
            await remote.sign(INFO, MODEL, NEED, 1)


@pytest.mark.parametrize(
    ("body", "problem"),
    [
        (b"nonsense", "does not prove"),
        (b"{}", "does not prove"),
        (b'{"address":"0x%b","signature":"0x%b"}' % (b"11" * 20, b"22" * 65), "does not prove"),
        (b"x" * 2_000_000, "too long"),
    ],
)
async def test_a_stranger_is_not_taken_for_a_signer(body: bytes, problem: str, desk: Desk) -> None:
    async def answer(request: web.Request) -> web.Response:
        del request
        return web.Response(body=body, content_type="application/json")

    app = web.Application()
    app.router.add_post("/sign-orchestrator-info", answer)
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    url = f"http://127.0.0.1:{runner.addresses[0][1]}"
    with pytest.raises(RemoteSignerError, match=problem):
        await RemoteSigner.open(desk.client, url)
    await runner.cleanup()
    with pytest.raises(RemoteSignerError, match="does not answer"):
        await RemoteSigner.open(desk.client, url)


async def test_tickets_of_another_account_are_not_sent_on(desk: Desk) -> None:
    remote = RemoteSigner(desk.client, desk.url, Address(b"\x01" * 20), b"")
    with pytest.raises(RemoteSignerError, match="another account"):
        await remote.sign(INFO, MODEL, NEED, 1)


@given(
    count=st.integers(1, 100),
    pixels_of_value=st.fractions(1, 10**7),
    price=st.fractions(Fraction(1, 10**6), 10**9),
    left=st.fractions(0, 1).filter(lambda share: share < 1),
)
def test_the_pixels_named_make_the_tickets_wanted(
    count: int, pixels_of_value: Fraction, price: Fraction, left: Fraction
) -> None:
    """For any value of at least a pixel's price, and whatever less than a pixel was left over."""
    value, balance = pixels_of_value * price, left * price
    pixels = pixels_to_name(count, value, price, balance)
    assert tickets_needed(balance, pixels * price, value) == count
    assert 0 <= balance + count * value - pixels * price < price
