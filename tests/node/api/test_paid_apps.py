"""Calls that are paid one by one: the price of just this request, asked for and paid to the wei."""

import asyncio
import json
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest

from network.identity import KeySigner, checksum
from network.payments.checks import Funds, Now, PayerLimits, payers_objection
from network.units import Wei
from network.wire.codec import Payment
from network.wire.headers import CREDIT, FEE, JOB_ID, PAYER_ADDRESS, PAYMENT, SEGMENT
from network.wire.tickets import decode_ticket_params
from node.engine.work import FailureKind, JobFailedError, ModelState
from tests.node.apps.callers import (
    Terms,
    body_of,
    bought,
    call,
    headers_for,
    listed,
    payment_for,
    problem,
    without_tickets,
)
from tests.node.fakes import MODEL, FakeEngine
from tests.node.nodes import GATEWAY_KEY, NODE_KEY, Answer, Buyer, eventually
from tests.node.payments.paid_nodes import (
    ETHER,
    PayingBuyer,
    credit_of,
    funded_chain,
    paid_node,
)
from tests.node.payments.paid_nodes import (
    FEE as COST,
)

OTHER_KEY = KeySigner(b"\x33" * 32)
DIFFERS = "payment price does not match live runner price"
REPLAYED = "job id {} was used before"


OTHER = checksum(OTHER_KEY.address)
GATEWAY = checksum(GATEWAY_KEY.address)


def _priced(folder: Path, prices: dict[str, str | int]) -> dict[str, Any]:
    """Settings with prices of the built-in model, in wei per pixel, by who pays."""
    entries = [
        {
            "pipeline": "text-to-image", "model_id": MODEL, "warm": True, "gateway": payer,
            "price_per_unit": str(price).partition("/")[0],
            "pixels_per_unit": str(price).partition("/")[2] or 1,
        }
        for payer, price in prices.items()
    ]  # fmt: skip
    path = folder / "aiModels.json"
    path.write_text(json.dumps(entries))
    return {"models": [], "ai_models": path}


async def test_the_list_tells_the_most_that_a_call_can_cost(tmp_path: Path) -> None:
    async with paid_node(tmp_path, funded_chain()) as node, Buyer(node) as buyer:
        (runner,) = await listed(buyer)
        assert runner["price_info"] == {
            "price": 1024 * 1024 * 4 * 5 // 2,
            "currency": "wei",
            "unit": "fixed",
        }


async def test_a_call_is_priced_exactly_and_paid_exactly(tmp_path: Path) -> None:
    engine = FakeEngine()
    async with (
        paid_node(tmp_path, funded_chain(), engine) as node,
        PayingBuyer(node) as buyer,
    ):
        terms = Terms.of(await call(buyer))
        assert not engine.jobs
        assert terms.fee == COST
        assert terms.info.transcoder == terms.told["orchestrator"] == node.url
        assert terms.info.address == NODE_KEY.address
        token = terms.info.auth_token
        assert token is not None
        assert token.session_id == terms.session_id
        assert terms.told["payment_url"].startswith(f"{node.url}/apps/")
        assert terms.told["payment_url"].endswith(f"/session/{terms.session_id}/payment")
        assert f"{COST} wei" in terms.told["error"]["message"]

        payment = payment_for(buyer, terms)
        assert len(payment.tickets) == 1
        answer = await call(buyer, headers_for(buyer, terms, payment))
        assert answer.status == 200, answer.text
        assert answer.headers[FEE] == str(COST)
        assert answer.headers[JOB_ID] == terms.session_id
        assert COST <= credit_of(answer) < COST + 1
        receipt = (await buyer.receipt(terms.session_id)).json
        assert receipt["charged"] == str(COST)
        assert receipt["state"] == "delivered"
        assert Fraction(receipt["credited"]) == credit_of(answer)


async def test_other_bodies_have_other_prices_and_a_payment_is_for_one(tmp_path: Path) -> None:
    async with paid_node(tmp_path, funded_chain()) as node, PayingBuyer(node) as buyer:
        small = Terms.of(await call(buyer))
        large = Terms.of(await call(buyer, width=128, num_images_per_prompt=3))
        assert large.fee == 6 * small.fee
        headers = headers_for(buyer, small)
        dearer = await call(buyer, headers, width=128)
        assert problem(dearer) == (400, DIFFERS)
        cheaper = await call(buyer, headers_for(buyer, large))
        assert problem(cheaper) == (400, DIFFERS)
        assert CREDIT not in cheaper.headers
        assert (await call(buyer, headers)).status == 200


async def test_a_payer_has_its_own_price_and_the_listed_one_is_above_all(tmp_path: Path) -> None:
    prices: dict[str, str | int] = {"default": "5/2", OTHER: 7, GATEWAY: "1/3"}
    chain = funded_chain()
    chain.fund(OTHER_KEY.address, Wei(ETHER), Wei(ETHER))
    async with (
        paid_node(tmp_path, chain, **_priced(tmp_path, prices)) as node,
        PayingBuyer(node) as buyer,
        PayingBuyer(node, OTHER_KEY) as other,
    ):
        (runner,) = await listed(buyer)
        assert runner["price_info"]["price"] == 1024 * 1024 * 4 * 7
        assert Terms.of(await call(other)).fee == 64 * 64 * 7
        terms, answer = await bought(buyer)
        assert terms.fee == -(-64 * 64 // 3)
        assert answer.headers[FEE] == str(terms.fee)
        # Another's terms are no use: whoever pays is proven, and has its own price.
        named = {PAYER_ADDRESS: GATEWAY}
        stolen = Terms.of(await call(other, named))
        answer = await call(other, headers_for(other, stolen))
        assert problem(answer) == (400, DIFFERS)


async def test_a_call_is_made_once_for_its_payment(tmp_path: Path) -> None:
    engine = FakeEngine()
    async with (
        paid_node(tmp_path, funded_chain(), engine) as node,
        PayingBuyer(node) as buyer,
    ):
        terms = Terms.of(await call(buyer))
        headers = headers_for(buyer, terms)
        answers = await asyncio.gather(*(call(buyer, headers) for _ in range(5)))
        assert sorted(answer.status for answer in answers) == [200, 409, 409, 409, 409]
        assert problem(await call(buyer, headers)) == (409, REPLAYED.format(terms.session_id))
        # The same tickets under another session are known by their numbers.
        again = Terms.of(await call(buyer))
        moved = await call(buyer, headers_for(buyer, again, payment_for(buyer, terms)))
        status, message = problem(moved)
        assert status == 400
        assert message.startswith("invalid ticket senderNonce: already seen")
        assert len(engine.jobs) == 1


async def test_what_failed_is_not_charged_and_what_was_paid_buys_the_next(
    tmp_path: Path,
) -> None:
    engine = FakeEngine()
    async with (
        paid_node(tmp_path, funded_chain(), engine) as node,
        PayingBuyer(node) as buyer,
    ):
        engine.failures.append(JobFailedError(FailureKind.WORKER_CRASHED, "gone"))
        terms, answer = await bought(buyer)
        assert problem(answer) == (500, "the image worker crashed during this job")
        assert credit_of(answer) >= COST
        assert (await buyer.receipt(terms.session_id)).json["charged"] == "0"
        terms = Terms.of(await call(buyer))
        unpaid = without_tickets(payment_for(buyer, terms))
        assert (await call(buyer, headers_for(buyer, terms, unpaid))).status == 200
        terms = Terms.of(await call(buyer))
        answer = await call(buyer, headers_for(buyer, terms, unpaid))
        assert problem(answer) == (400, "Insufficient balance")


async def test_nobody_is_asked_to_pay_for_what_cannot_be_had(tmp_path: Path) -> None:
    engine = FakeEngine()
    async with (
        paid_node(tmp_path, funded_chain(), engine) as node,
        PayingBuyer(node) as buyer,
    ):
        assert problem(await call(buyer, width=65))[0] == 422
        assert problem(await call(buyer, body=b"{"))[0] == 422
        assert problem(await buyer.post("/apps/nothing/app", body_of(), {}))[0] == 404
        terms = Terms.of(await call(buyer))
        engine.change(ModelState(MODEL, "failed"))
        busy = (503, "no capacity available for runner: model_failed")
        assert problem(await call(buyer)) == busy
        answer = await call(buyer, headers_for(buyer, terms))
        assert problem(answer) == busy
        assert CREDIT not in answer.headers
        # The payment is as good as it was.
        engine.change(ModelState(MODEL, "ready", 1.0))
        assert (await call(buyer, headers_for(buyer, terms))).status == 200


@pytest.mark.parametrize(
    ("headers", "words"),
    [
        ({}, "Livepeer-Payer-Address is missing"),
        ({PAYER_ADDRESS: ""}, "not an address"),
        ({PAYER_ADDRESS: "0x12"}, "not an address"),
        ({PAYER_ADDRESS: "0x" + "00" * 20}, "nobody's account"),
        ({PAYMENT: "%", SEGMENT: "x"}, "base64"),
    ],
)
async def test_who_pays_has_to_be_an_account(
    tmp_path: Path, headers: dict[str, str], words: str
) -> None:
    async with paid_node(tmp_path, funded_chain()) as node, Buyer(node) as buyer:
        status, message = problem(await call(buyer, headers))
        assert status == 402
        assert words in message


async def test_who_cannot_pay_is_told_why(tmp_path: Path) -> None:
    async with (
        paid_node(tmp_path, funded_chain()) as node,
        PayingBuyer(node, OTHER_KEY) as poor,
    ):
        assert problem(await call(poor)) == (503, "insufficient sender reserve")


async def test_a_fee_beyond_what_payers_sign_is_refused_with_the_reason(tmp_path: Path) -> None:
    """100 tickets of half a face value of 21,000 wei."""
    async with paid_node(tmp_path, funded_chain()) as node, PayingBuyer(node) as buyer:
        status, message = problem(await call(buyer, width=1024, height=1024))
        assert status == 400
        assert message.startswith("a call of 2621440 wei cannot be paid: it takes 250 tickets")
        terms, answer = await bought(buyer, width=256, height=128)
        assert answer.status == 200
        assert answer.headers[FEE] == str(256 * 128 * 5 // 2) == str(terms.fee)
        assert credit_of(answer) < terms.fee + 10


async def test_the_two_headers_are_checked_in_livepeers_order(tmp_path: Path) -> None:
    async with (
        paid_node(tmp_path, funded_chain()) as node,
        PayingBuyer(node) as buyer,
        PayingBuyer(node, OTHER_KEY) as thief,
    ):
        terms = Terms.of(await call(buyer))
        good = headers_for(buyer, terms)

        async def sent(**changes: str) -> tuple[int, str]:
            return problem(await call(buyer, {**good, **changes}))

        assert (await sent(**{PAYMENT: "?"}))[0] == 402
        assert await sent(**{SEGMENT: "?"}) == (403, "ErrorSegEncoding")
        assert await sent(**{SEGMENT: ""}) == (403, "ErrSegSig")
        assert await sent(**{PAYMENT: ""}) == (403, "ErrSegSig")
        assert await sent(**headers_for(thief, terms, payment_for(buyer, terms))) == (
            403,
            "ErrSegSig",
        )
        assert await sent(**headers_for(buyer, terms, manifest="27_" + MODEL)) == (
            403,
            "mismatched manifest and auth token",
        )
        token = terms.info.auth_token
        assert token is not None
        forged = replace(
            terms, info=replace(terms.info, auth_token=replace(token, token=b"x" * 32))
        )
        assert await sent(**headers_for(buyer, forged)) == (403, "invalid auth token")
        no_price = replace(payment_for(buyer, terms), expected_price=None)
        assert await sent(**headers_for(buyer, terms, no_price)) == (400, DIFFERS)
        assert (await call(buyer, good)).status == 200


async def test_terms_can_be_renewed_until_the_call_is_made(tmp_path: Path) -> None:
    async with paid_node(tmp_path, funded_chain()) as node, PayingBuyer(node) as buyer:
        terms = Terms.of(await call(buyer))

        async def renewed(session_id: str, sender: str = GATEWAY) -> Answer:
            body = b'{"sender":"%s","manifest_id":"%s"}' % (sender.encode(), session_id.encode())
            return await buyer.post("/refresh-payment", body, {})

        answer = await renewed(terms.session_id)
        assert answer.status == 200
        fresh = Terms.read(answer.json)
        assert fresh.session_id == terms.session_id
        assert fresh.fee == terms.fee
        assert fresh.info.ticket_params != terms.info.ticket_params
        for session_id, sender in (
            (terms.session_id, OTHER),
            (terms.session_id[:-1] + "1", GATEWAY),
            ("01234567", GATEWAY),
            ("", GATEWAY),
        ):
            assert problem(await renewed(session_id, sender))[0] == 409, session_id
        assert (await call(buyer, headers_for(buyer, fresh))).status == 200
        assert problem(await renewed(terms.session_id))[0] == 409
        gone = terms.told["payment_url"].removeprefix(node.url)
        assert problem(await buyer.post(gone, b"", headers_for(buyer, terms)))[0] == 404


async def test_only_known_accounts_are_sold_to_where_the_operator_says_so(tmp_path: Path) -> None:
    chain = funded_chain()
    chain.fund(OTHER_KEY.address, Wei(ETHER), Wei(ETHER))
    allowed: dict[str, Any] = {"allowed_gateways": [GATEWAY]}
    async with (
        paid_node(tmp_path, chain, **allowed) as node,
        PayingBuyer(node) as buyer,
        PayingBuyer(node, OTHER_KEY) as stranger,
    ):
        assert problem(await call(stranger))[0] == 403
        # It names an account that may, and cannot prove it.
        named = {PAYER_ADDRESS: GATEWAY}
        terms = Terms.of(await call(stranger, named))
        assert problem(await call(stranger, headers_for(stranger, terms))) == (403, "ErrSegSig")
        assert (await bought(buyer))[1].status == 200


async def test_free_work_takes_no_payment_unless_who_asks_matters(tmp_path: Path) -> None:
    free = {"id": MODEL, "path": tmp_path / "model", "price": "0"}
    async with paid_node(tmp_path, funded_chain(), models=[free]) as node, Buyer(node) as buyer:
        (runner,) = await listed(buyer)
        assert "price_info" not in runner
        answer = await call(buyer)
        assert answer.status == 200
        assert answer.headers[FEE] == "0"
    async with (
        paid_node(
            tmp_path, funded_chain(), **_priced(tmp_path, {"default": 1, GATEWAY: 0})
        ) as node,
        PayingBuyer(node) as buyer,
    ):
        terms = Terms.of(await call(buyer))
        assert terms.fee == 0
        proven = Payment(sender=GATEWAY_KEY.address)
        answer = await call(buyer, headers_for(buyer, terms, proven))
        assert answer.status == 200, answer.text
        assert answer.headers[FEE] == "0"


async def test_payers_sign_what_a_call_is_quoted_at(tmp_path: Path) -> None:
    chain = funded_chain()
    head = await chain.head()
    async with paid_node(tmp_path, chain) as node, PayingBuyer(node) as buyer:
        for width, images in ((64, 1), (128, 1), (256, 4)):
            terms = Terms.of(await call(buyer, width=width, num_images_per_prompt=images))
            assert terms.info.ticket_params is not None
            params = decode_ticket_params(terms.info.ticket_params)
            objection = payers_objection(
                params,
                len(payment_for(buyer, terms).tickets),
                orchestrator=NODE_KEY.address,
                now=Now(head.l1_block, head.last_initialized_round, (head.creation,)),
                funds=Funds(Wei(ETHER), Wei(ETHER)),
                limits=PayerLimits(),
            )
            assert objection is None
            assert params.expected_value * 2 <= params.face_value + 1


async def test_terms_outlive_a_restart(tmp_path: Path) -> None:
    """Nothing was remembered of them, so that nothing is lost."""
    chain = funded_chain()
    async with paid_node(tmp_path, chain) as node, PayingBuyer(node) as buyer:
        terms = Terms.of(await call(buyer))
        made = Terms.of(await call(buyer))
        assert (await call(buyer, headers_for(buyer, made))).status == 200
    async with paid_node(tmp_path, chain) as node, PayingBuyer(node) as buyer:
        assert (await call(buyer, headers_for(buyer, terms))).status == 200
        assert problem(await call(buyer, headers_for(buyer, made))) == (
            409,
            REPLAYED.format(made.session_id),
        )


async def test_a_promised_price_holds_for_its_request_when_prices_change(tmp_path: Path) -> None:
    """As a rate moves between the two, or an operator's mind."""
    chain = funded_chain()
    async with paid_node(tmp_path, chain) as node, PayingBuyer(node) as buyer:
        terms = Terms.of(await call(buyer))
        other = Terms.of(await call(buyer))
    dearer: dict[str, Any] = {"models": [{"id": MODEL, "path": tmp_path / "model", "price": "3"}]}
    async with paid_node(tmp_path, chain, **dearer) as node, PayingBuyer(node) as buyer:
        assert Terms.of(await call(buyer)).fee == 64 * 64 * 3
        larger = await call(buyer, headers_for(buyer, other), width=72)
        assert problem(larger) == (400, DIFFERS)
        answer = await call(buyer, headers_for(buyer, terms))
        assert answer.status == 200, answer.text
        assert answer.headers[FEE] == str(COST)
        assert (await buyer.receipt(terms.session_id)).json["charged"] == str(COST)


async def test_who_hangs_up_pays_nothing_and_keeps_what_its_tickets_brought(
    tmp_path: Path,
) -> None:
    engine = FakeEngine(step_seconds=30)
    async with (
        paid_node(tmp_path, funded_chain(), engine) as node,
        PayingBuyer(node) as buyer,
    ):
        terms = Terms.of(await call(buyer))
        asking = asyncio.create_task(call(buyer, headers_for(buyer, terms)))

        async def is_running() -> bool:
            return engine.active == 1

        await eventually(is_running)
        (runner,) = await listed(buyer)
        assert (runner["capacity_used"], runner["capacity_available"]) == (1, 1)
        asking.cancel()

        async def is_over() -> bool:
            receipt = (await buyer.receipt(terms.session_id)).json
            return (receipt["state"], receipt["charged"]) == ("cancelled", "0")

        await eventually(is_over)
        assert len(engine.cancelled) == 1
        receipt = (await buyer.receipt(terms.session_id)).json
        assert Fraction(receipt["credited"]) >= COST
