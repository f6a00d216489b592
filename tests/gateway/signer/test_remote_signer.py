"""A gateway without a key: it pays through a signer, over real HTTP."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from fractions import Fraction

import pytest
from aiohttp import web
from hypothesis import given
from hypothesis import strategies as st

from gateway.payments.payer import Quote, SignedTickets, StaleQuoteError, UnpayableError
from gateway.payments.remote_signer import (
    RemoteSigner,
    RemoteSignerError,
    SignerUnavailableError,
    pixels_to_name,
)
from gateway.signer.desk import PriceCaps
from network.capabilities import job_capabilities
from network.errors import LimnerError
from network.identity import verify_session_request
from network.payments.pricing import tickets_needed
from network.payments.signing import TicketSeries
from network.units import Address, ModelId, Wei
from network.wire.codec import (
    AuthToken,
    OrchestratorInfo,
    SegmentCredentials,
    decode_segment_credentials,
)
from network.wire.headers import decode_header, verify_segment
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

Handler = Callable[[web.Request], Awaitable[web.Response]]


@asynccontextmanager
async def serving(path: str, handle: Handler) -> AsyncIterator[str]:
    """Something in a signer's place."""
    app = web.Application()
    app.router.add_post(path, handle)
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    try:
        yield f"http://127.0.0.1:{runner.addresses[0][1]}"
    finally:
        await runner.cleanup()


@pytest.fixture
async def desk() -> AsyncIterator[Desk]:
    async with signing_desk() as served:
        yield served


@pytest.fixture
async def remote(desk: Desk) -> RemoteSigner:
    return await RemoteSigner.open(desk.client, desk.url, "0.9.1")


async def make(remote: RemoteSigner, count: int, info: OrchestratorInfo = INFO) -> SignedTickets:
    return await remote.make(Quote.of(MODEL, info), count)


async def nonces(remote: RemoteSigner, count: int, info: OrchestratorInfo = INFO) -> list[int]:
    """The nonces of tickets that the signer's account signed for this quote."""
    quote = Quote.of(MODEL, info)
    signed = await remote.make(quote, count)
    series = TicketSeries(quote.params, SIGNER.address)
    for ticket in signed.tickets:
        series.check(ticket.nonce, ticket.signature)
    return [ticket.nonce for ticket in signed.tickets]


def credentials_of(signed: SignedTickets) -> SegmentCredentials:
    credentials = decode_segment_credentials(decode_header(signed.credentials))
    verify_segment(credentials, SIGNER.address)
    return credentials


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
    desk: Desk, remote: RemoteSigner
) -> None:
    credentials = credentials_of(await make(remote, 1))
    assert credentials.manifest_id == b"27_m"
    assert credentials.capabilities == NEED
    assert credentials.auth_token == INFO.auth_token
    later = replace(INFO, auth_token=AuthToken(b"u" * 32, "89abcdef", int(NOW) + 60))
    desk.outlook.active.clear()  # the signer would refuse: it is not asked
    unpaid = await make(remote, 0, later)
    assert unpaid.tickets == ()
    assert credentials_of(unpaid).auth_token == later.auth_token


async def test_the_first_job_has_credentials_even_if_no_ticket_is_due(
    remote: RemoteSigner,
) -> None:
    unpaid = await make(remote, 0)
    assert unpaid.tickets == ()
    assert credentials_of(unpaid).manifest_id == b"27_m"
    # The ticket that came with them was sent to nobody; its nonce is not used again.
    assert await nonces(remote, 2) == [2, 3]


async def test_the_signers_statuses_say_what_to_do(desk: Desk, remote: RemoteSigner) -> None:
    with pytest.raises(StaleQuoteError, match="TicketParams expired"):
        await make(remote, 1, quoting(ticket_params(expiration_block=BLOCK)))
    await make(remote, 1)
    with pytest.raises(UnpayableError, match=r"481.*more than doubled"):
        await make(remote, 1, replace(INFO, price=Fraction(2)))
    desk.outlook.active.clear()
    with pytest.raises(RemoteSignerError, match="not an active orchestrator"):
        await make(remote, 1)
    with pytest.raises(RemoteSignerError, match="no price"):
        await make(remote, 1, replace(INFO, price=Fraction(0)))


async def test_where_the_signer_finds_a_job_paid_it_goes_without_tickets(desk: Desk) -> None:
    """Status 482, which our own way of asking avoids; another signer may count otherwise."""
    answers = [200, 482]

    async def answer(request: web.Request) -> web.Response:
        if answers.pop(0) == 482:
            return web.json_response({"error": {"message": "nothing due"}}, status=482)
        url = desk.url + request.path
        async with desk.client.post(url, data=await request.read()) as response:
            return web.Response(body=await response.read(), status=response.status)

    async with serving("/generate-live-payment", answer) as url:
        remote = RemoteSigner(desk.client, url, SIGNER.address, b"", "0.9.1")
        assert await nonces(remote, 1) == [1]
        unpaid = await make(remote, 1)
        assert unpaid.tickets == ()
        assert credentials_of(unpaid).auth_token == INFO.auth_token
        answers[:] = [482]
        with pytest.raises(RemoteSignerError, match="482: nothing due"):
            # For a model whose credentials are not known there is no way round the signer.
            await remote.make(Quote.of(ModelId("other"), INFO), 1)


async def test_a_refused_call_takes_no_nonce(desk: Desk, remote: RemoteSigner) -> None:
    await make(remote, 2)
    funds = desk.outlook.sender
    desk.outlook.sender = replace(funds, deposit=Wei(0))
    with pytest.raises(RemoteSignerError, match="deposit"):
        await make(remote, 1)
    desk.outlook.sender = funds
    assert await nonces(remote, 1) == [3]


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        (400, RemoteSignerError),
        (413, RemoteSignerError),
        (500, RemoteSignerError),
        (302, SignerUnavailableError),
        (401, SignerUnavailableError),
        (403, SignerUnavailableError),
        (404, SignerUnavailableError),
        (429, SignerUnavailableError),
        (502, SignerUnavailableError),
        (503, SignerUnavailableError),
    ],
)
async def test_a_quote_that_is_refused_is_told_from_a_signer_that_serves_nobody(
    status: int, kind: type[LimnerError], desk: Desk
) -> None:
    """Else one orchestrator could stop all buying, or a dead signer look like bad orchestrators."""

    async def answer(request: web.Request) -> web.Response:
        del request
        return web.json_response({"error": {"message": "so it is"}}, status=status)

    async with serving("/generate-live-payment", answer) as url:
        remote = RemoteSigner(desk.client, url, SIGNER.address, b"", "0.9.1")
        with pytest.raises(kind, match=f"{status}: so it is"):
            await make(remote, 1)


async def test_a_price_cap_of_the_signer_is_told() -> None:
    async with signing_desk(caps=PriceCaps(per_pixel=Fraction(1, 2))) as desk:
        remote = await RemoteSigner.open(desk.client, desk.url, "0.9.1")
        with pytest.raises(RemoteSignerError, match="exceeds the maximum of 1/2 wei"):
            await make(remote, 1)


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

    async with serving("/sign-orchestrator-info", answer) as url:
        with pytest.raises(SignerUnavailableError, match=problem):
            await RemoteSigner.open(desk.client, url, "0.9.1")
    with pytest.raises(SignerUnavailableError, match="does not answer"):
        await RemoteSigner.open(desk.client, url, "0.9.1")


async def test_tickets_of_another_account_are_not_sent_on(desk: Desk) -> None:
    remote = RemoteSigner(desk.client, desk.url, Address(b"\x01" * 20), b"", "0.9.1")
    with pytest.raises(SignerUnavailableError, match="another account"):
        await make(remote, 1)


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
