"""POST /generate-live-payment and /sign-orchestrator-info over real HTTP."""

from collections.abc import AsyncIterator
from dataclasses import replace
from fractions import Fraction
from typing import Any

import orjson
import pybase64
import pytest

from network.capabilities import job_capabilities
from network.identity import parse_address, verify, verify_session_request
from network.payments.signing import TicketSeries
from network.payments.tickets import CreationRound, TicketParams
from network.units import Address, ModelId, Wei
from network.wire.codec import (
    AuthToken,
    Payment,
    decode_payment,
    decode_segment_credentials,
    encode_capabilities,
)
from network.wire.headers import decode_header, verify_segment
from network.wire.tickets import (
    decode_creation_round,
    decode_ticket_params,
    encode_ticket_params,
)
from tests.gateway.signer.signing_desk import (
    BLOCK,
    INFO,
    NOW,
    ROUND,
    SIGNER,
    Desk,
    asked,
    quoting,
    signing_desk,
    ticket_params,
)


@pytest.fixture
async def desk() -> AsyncIterator[Desk]:
    async with signing_desk() as served:
        yield served


def payment_of(answer: dict[str, Any]) -> Payment:
    return decode_payment(decode_header(answer["payment"]))


def nonces_of(answer: dict[str, Any], params: TicketParams) -> list[int]:
    """The nonces of a payment whose every ticket was signed by the signer."""
    payment = payment_of(answer)
    assert payment.sender == SIGNER.address
    assert payment.ticket_params is not None
    assert decode_ticket_params(payment.ticket_params, payment.expiration_params) == params
    series = TicketSeries(params, Address(payment.sender))
    for ticket in payment.tickets:
        series.check(ticket.nonce, ticket.signature)
    return [ticket.nonce for ticket in payment.tickets]


def state_of(answer: dict[str, Any]) -> dict[str, Any]:
    """What the state says; its signature must cover its very bytes."""
    content = pybase64.b64decode(answer["state"]["State"])
    verify(SIGNER.address, content, pybase64.b64decode(answer["state"]["Sig"]))
    told: dict[str, Any] = orjson.loads(content)
    return told


def balance_of(answer: dict[str, Any]) -> Fraction:
    return Fraction(state_of(answer)["Balance"])


async def test_the_account_is_told_as_getorchestrator_wants_it(desk: Desk) -> None:
    status, answer, _ = await desk.call("/sign-orchestrator-info", {})
    assert status == 200
    # Livepeer wire 8.14: the signature that go-livepeer's orchestrators verify for this account.
    assert answer["address"] == "0x2c7536E3605D9C16a7a3D7b1898e529396a65c23"
    assert answer["signature"] == (
        "0x662f6ce6e23e70c7db9bdcc7b0d91bdf58d8743ba347ab0b9aa060154644c55122dd6afcc20a6cba9cab1d"
        "565a6b1dc36be9a9314e0317b943f8b0f1a726e2971b"
    )
    signature = bytes.fromhex(answer["signature"][2:])
    verify_session_request(parse_address(answer["address"]), signature)


@pytest.mark.parametrize(
    ("pixels", "fee"), [(1000, Fraction(6000, 7)), (2500, Fraction(15000, 7))]
)
async def test_pixels_cost_their_exact_price(desk: Desk, pixels: int, fee: Fraction) -> None:
    """Livepeer wire 8.13: 1000 px at 150/175 cost 6000/7, 2500 px 15000/7."""
    params = ticket_params(ev=1000, face_value=10**9)
    answer = await desk.pay(quoting(params, price=Fraction(150, 175)), inPixels=pixels)
    ev = params.expected_value
    count = len(nonces_of(answer, params))
    assert count == -(-max(fee, ev) // ev)
    assert balance_of(answer) == count * ev - fee
    assert payment_of(answer).expected_price == Fraction(6, 7)


async def test_nonces_go_on_under_one_quote_and_begin_anew_under_the_next(desk: Desk) -> None:
    params = ticket_params()
    first = await desk.pay(inPixels=4000)
    assert nonces_of(first, params) == [1, 2, 3, 4]
    second = await desk.pay(inPixels=4000, state=first["state"])
    assert nonces_of(second, params) == [5, 6, 7]  # what was left over paid for a part
    other = ticket_params(rand=11)
    third = await desk.pay(quoting(other), inPixels=4000, state=second["state"])
    assert nonces_of(third, other)[0] == 1
    told = state_of(third)
    assert told["SequenceNumber"] == 3
    assert told["PMSessionID"] == other.recipient_rand_hash.hex()
    assert told["StateID"] == state_of(first)["StateID"]
    paid = 4 + 3 + len(nonces_of(third, other))
    assert Fraction(told["Balance"]) == paid * params.expected_value - 3 * 4000 * Fraction(6, 7)


async def test_a_state_shown_twice_makes_the_same_tickets(desk: Desk) -> None:
    """Case 2: whoever rolls back a state gains nothing: the tickets are those that were made."""
    first = await desk.pay(inPixels=4000)
    once = await desk.pay(inPixels=4000, state=first["state"])
    again = await desk.pay(inPixels=4000, state=first["state"])
    assert once["payment"] == again["payment"]


async def test_the_creation_round_of_the_quote_goes_into_the_payment(desk: Desk) -> None:
    payment = payment_of(await desk.pay(inPixels=10))
    assert payment.expiration_params is not None
    assert decode_creation_round(payment.expiration_params) == ROUND
    assert payment.ticket_params == encode_ticket_params(ticket_params(), with_creation=False)


async def test_credentials_are_signed_for_the_manifest_and_carry_the_token(desk: Desk) -> None:
    wanted = job_capabilities(ModelId("m"), "0.9.1")
    packed = pybase64.b64encode_as_string(encode_capabilities(wanted))
    answer = await desk.pay(inPixels=10, capabilities=packed)
    credentials = decode_segment_credentials(decode_header(answer["segCreds"]))
    verify_segment(credentials, SIGNER.address)
    assert credentials.manifest_id == b"27_m"
    assert credentials.auth_token == INFO.auth_token
    assert credentials.capabilities == wanted
    named = await desk.pay(inPixels=10, ManifestID="")
    credentials = decode_segment_credentials(decode_header(named["segCreds"]))
    # Live runners demand that the manifest is the session.
    assert credentials.manifest_id == b"01234567"


async def test_a_fixed_call_costs_one_unit(desk: Desk) -> None:
    params = ticket_params(ev=1000)
    info = quoting(params, price=Fraction(2500))
    answer = await desk.pay(info, type="fixed", app="text-to-image/m")
    assert nonces_of(answer, params) == [1, 2, 3]
    assert state_of(answer)["App"] == "text-to-image/m"
    assert state_of(answer)["Type"] == "fixed"


async def test_live_seconds_are_counted_from_the_last_payment(desk: Desk) -> None:
    """Livepeer wire 7.4: ten seconds ahead at first, then started seconds."""
    params = ticket_params(ev=1000)
    info = quoting(params, price=Fraction(500))
    first = await desk.pay(info, type="live")
    count = len(nonces_of(first, params))
    assert balance_of(first) == count * params.expected_value - 10 * 500
    desk.clock.seconds += 6.2
    second = await desk.pay(info, type="live", state=first["state"])
    count += len(nonces_of(second, params))
    assert balance_of(second) == count * params.expected_value - (10 + 7) * 500


async def test_video_pixels_are_those_of_720p_at_30_frames(desk: Desk) -> None:
    """Livepeer wire 7.4: a minute ahead at first, then the time that passed."""
    price = Fraction(1, 100)
    params = ticket_params(ev=10**6, face_value=10**12)
    info = quoting(params, price=price)
    first = await desk.pay(info, type="lv2v")
    count = len(nonces_of(first, params))
    assert balance_of(first) == count * params.expected_value - 60 * 27_648_000 * price
    desk.clock.seconds += 3.5
    second = await desk.pay(info, type="lv2v", state=first["state"])
    count += len(nonces_of(second, params))
    spent = Fraction("63.5") * 27_648_000 * price
    assert balance_of(second) == count * params.expected_value - spent


async def test_a_balance_stays_short_whatever_prices_a_client_makes_up(desk: Desk) -> None:
    answer = await desk.pay(inPixels=2000)
    for number in range(60):
        price = Fraction(2**62 + number, 2**62 - 2 * number - 1)
        info = quoting(ticket_params(), price=price)
        answer = await desk.pay(info, inPixels=2000, state=answer["state"])
    assert len(answer["state"]["State"]) < 8000
    assert 0 <= balance_of(answer) < 2000


async def test_what_is_already_paid_needs_no_tickets(desk: Desk) -> None:
    params = ticket_params(ev=1000)
    info = quoting(params, price=Fraction(1))
    first = await desk.pay(info, inPixels=2 * 999)
    assert len(nonces_of(first, params)) == 2
    left = await desk.pay(info, inPixels=1, state=first["state"])
    assert balance_of(left) >= params.expected_value
    status, _, _ = await desk.refused(info, inPixels=1, state=left["state"])
    assert status == 482


async def test_an_old_session_or_quote_has_to_be_refreshed(desk: Desk) -> None:
    """Case 7: the client is told whom to ask anew."""
    token = AuthToken(b"t" * 32, "01234567", int(NOW))
    for info in (
        replace(INFO, auth_token=token),
        quoting(ticket_params(expiration_block=BLOCK + 1)),
        quoting(ticket_params(expiration_block=BLOCK - 5)),
    ):
        status, _, headers = await desk.refused(info, inPixels=1)
        assert status == 480
        assert headers["Livepeer-Orchestrator-URL"] == INFO.transcoder


async def test_a_quote_of_the_round_before_is_paid_and_any_other_refreshed(desk: Desk) -> None:
    """Case 8 and 24: the round may roll over between quote and payment, but is never made up."""
    await desk.pay(inPixels=10)
    following = CreationRound(6, b"\x08" * 32)
    desk.outlook.head = replace(desk.outlook.head, last_initialized_round=6, creation=following)
    await desk.pay(inPixels=10)
    await desk.pay(quoting(replace(ticket_params(), creation=following)), inPixels=10)
    for strange in (CreationRound(5, b"\x08" * 32), CreationRound(4, ROUND.block_hash)):
        info = quoting(replace(ticket_params(), creation=strange))
        assert (await desk.refused(info, inPixels=10))[0] == 480


async def test_a_quote_is_refreshed_before_its_nonces_run_out(desk: Desk) -> None:
    state: Any = None
    for _ in range(6):
        state = (await desk.pay(inPixels=115_000, state=state))["state"]
    status, _, headers = await desk.refused(inPixels=115_000, state=state)
    assert status == 480
    assert headers["Livepeer-Orchestrator-URL"] == INFO.transcoder


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"price": None}, "missing or zero priceInfo"),
        ({"price": Fraction(0)}, "missing or zero priceInfo"),
        ({"ticket_params": None}, "missing ticket params"),
        ({"auth_token": None}, "missing auth token"),
        ({"address": b""}, "missing orchestrator address"),
    ],
)
async def test_what_cannot_be_paid_is_a_bad_request(
    desk: Desk, changes: dict[str, Any], message: str
) -> None:
    status, said, _ = await desk.refused(replace(INFO, **changes), inPixels=1)
    assert (status, said) == (400, message)


async def test_more_than_a_hundred_tickets_are_refused(desk: Desk) -> None:
    info = quoting(ticket_params(), price=Fraction(1))
    assert (await desk.call("/generate-live-payment", asked(info, inPixels=99_999)))[0] == 200
    status, message, _ = await desk.refused(info, inPixels=125_000)
    assert (status, message) == (400, "numTickets 126 exceeds maximum of 100")


async def test_a_price_above_the_maximum_is_481(desk: Desk) -> None:
    def most(price: float, unit: str) -> dict[str, Any]:
        return {"maxPrice": {"price": price, "currency": "wei", "unit": unit}}

    info = quoting(ticket_params(), price=Fraction(1000))
    await desk.pay(info, type="fixed", **most(1012.0, "fixed"))
    await desk.pay(info, type="fixed", **most(1000, "fixed"))
    assert (await desk.refused(info, type="fixed", **most(999.99, "fixed")))[0] == 481
    assert (await desk.refused(info, type="fixed", **most(5000, "seconds")))[0] == 400
    await desk.pay(info, type="live", **most(3_600_000, "hour"))
    assert (await desk.refused(info, type="live", **most(3_599_999, "hour")))[0] == 481
    video = quoting(ticket_params(ev=10**11, face_value=10**15), price=Fraction(1, 100))
    await desk.pay(video, type="lv2v", **most(276_480, "720p-pixel-seconds"))
    assert (await desk.refused(video, type="lv2v", **most(276_479, "720p")))[0] == 481


async def test_a_price_that_more_than_doubles_in_a_session_is_481(desk: Desk) -> None:
    first = await desk.pay(quoting(ticket_params(), price=Fraction(1, 6)), inPixels=6000)
    state = first["state"]
    await desk.pay(quoting(ticket_params(), price=Fraction(1, 3)), inPixels=60_000, state=state)
    dearer = quoting(ticket_params(), price=Fraction(1000, 2999))
    status, message, _ = await desk.refused(dearer, inPixels=60_000, state=state)
    assert status == 481
    assert "more than doubled" in message


async def test_a_state_that_was_tampered_with_is_refused(desk: Desk) -> None:
    state = (await desk.pay(inPixels=10))["state"]
    told = orjson.loads(pybase64.b64decode(state["State"]))
    told["Balance"] = "1000000000"
    richer = pybase64.b64encode_as_string(orjson.dumps(told))
    spoiled = bytearray(pybase64.b64decode(state["Sig"]))
    spoiled[5] ^= 1
    for forged in (
        {"State": richer, "Sig": state["Sig"]},
        {"State": state["State"], "Sig": pybase64.b64encode_as_string(bytes(spoiled))},
        {"State": state["State"], "Sig": ""},
        {"State": state["State"], "Sig": "!"},
        {"State": "", "Sig": state["Sig"]},
        {"State": "x" * 20_000, "Sig": state["Sig"]},
    ):
        status, message, _ = await desk.refused(inPixels=10, state=forged)
        assert status == 400
        assert "signer" in message
    await desk.pay(inPixels=10, state=state)


async def test_a_state_is_good_for_its_own_orchestrator_and_type_only(desk: Desk) -> None:
    state = (await desk.pay(inPixels=10))["state"]
    other = replace(INFO, address=b"\xbb" * 20)
    assert (await desk.refused(other, inPixels=10, state=state))[0] == 400
    assert (await desk.refused(type="fixed", state=state))[0] == 400


async def test_an_inactive_recipient_gets_no_tickets(desk: Desk) -> None:
    desk.outlook.active.clear()
    status, message, _ = await desk.refused(inPixels=10)
    assert status == 400
    assert "not an active orchestrator" in message


async def test_a_paused_broker_gets_no_tickets(desk: Desk) -> None:
    """Case 30: nobody could redeem them, and their round goes by."""
    desk.outlook.head = replace(desk.outlook.head, is_paused=True)
    status, message, _ = await desk.refused(inPixels=10)
    assert status == 503
    assert "paused" in message


async def test_a_url_that_would_break_a_header_is_left_out(desk: Desk) -> None:
    token = AuthToken(b"t" * 32, "01234567", int(NOW))
    info = replace(INFO, auth_token=token, transcoder="http://x\r\nSet-Cookie: a=b")
    status, _, headers = await desk.refused(info, inPixels=1)
    assert status == 480
    assert headers["Livepeer-Orchestrator-URL"] == ""
    assert "Set-Cookie" not in headers


async def test_an_unlocking_sender_signs_nothing(desk: Desk) -> None:
    """Case 12: orchestrators would refuse the tickets, and the operator wants out."""
    desk.outlook.sender = replace(desk.outlook.sender, withdraw_round=6)
    status, message, _ = await desk.refused(inPixels=10)
    assert status == 400
    assert "unlock" in message


async def test_a_quote_beyond_the_limits_is_refused(desk: Desk) -> None:
    """Case 24: huge face value, certain win, too much at once."""
    desk.outlook.sender = replace(desk.outlook.sender, deposit=Wei(10**9))
    for params in (
        ticket_params(face_value=10**9 + 1),
        ticket_params(ev=10**9, face_value=10**9),
        ticket_params(ev=4 * 10**12, face_value=10**15),
        ticket_params(expiration_block=BLOCK + 101),
    ):
        assert (await desk.refused(quoting(params), inPixels=10))[0] == 400


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"[]",
        b"{}",
        b'{"orchestrator":5}',
        b'{"orchestrator":"!!"}',
        b'{"orchestrator":"//8="}',
        b"\xff",
        b"[" * 5000,
        b'{"inPixels":1e999999999}',
    ],
)
async def test_nonsense_is_a_bad_request(desk: Desk, body: bytes) -> None:
    async with desk.client.post(f"{desk.url}/generate-live-payment", data=body) as response:
        assert response.status == 400
        assert list(await response.json()) == ["error"]


async def test_wrong_fields_are_named(desk: Desk) -> None:
    for more, word in (
        ({"inPixels": -1}, "inPixels"),
        ({"inPixels": 0}, "inPixels"),
        ({"inPixels": True}, "inPixels"),
        ({"type": "byoc"}, "type"),
        ({"inPixels": 1, "maxPrice": 5}, "maxPrice"),
        ({"inPixels": 1, "maxPrice": {"price": "5"}}, "maxPrice"),
        ({"inPixels": 1, "maxPrice": {"price": 5, "currency": "usd"}}, "currency"),
        ({"inPixels": 1, "state": {"State": 5}}, "state"),
        ({"inPixels": 1, "capabilities": "!"}, "capabilities"),
        ({"inPixels": 1, "app": "x" * 1000}, "app"),
    ):
        status, message, _ = await desk.refused(**more)
        assert status == 400
        assert word in message


async def test_other_paths_and_methods_answer_in_the_same_shape(desk: Desk) -> None:
    status, answer, headers = await desk.call("/generate-live-payment", method="GET")
    assert (status, list(answer), headers["Allow"]) == (405, ["error"], "POST")
    status, answer, _ = await desk.call("/nothing")
    assert (status, list(answer)) == (404, ["error"])
