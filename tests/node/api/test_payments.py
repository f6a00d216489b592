"""Paid jobs over HTTP: what a payment brings, what it costs, and in which words it is refused."""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest

from network.capabilities import job_capabilities
from network.chain.model import ChainUnavailableError
from network.errors import ConfigError
from network.identity import KeySigner, checksum
from network.payments.checks import Funds, Now, PayerLimits, payers_objection
from network.payments.pricing import tickets_needed
from network.units import Address, Wei
from network.wire.codec import Payment
from network.wire.headers import CREDIT, FEE, JOB_ID
from node.engine.work import FailureKind, JobFailedError
from node.payments.winnings import all_winners
from tests.node.fakes import MODEL, FakeEngine
from tests.node.nodes import GATEWAY_KEY, NODE_KEY, PRICE, Buyer, eventually, running_node
from tests.node.payments.paid_nodes import (
    ETHER,
    MemoryChain,
    PayingBuyer,
    Quote,
    changed,
    credit_of,
    funded_chain,
    in_books,
    paid_node,
    refused,
)
from tests.node.payments.paid_nodes import FEE as COST

SENDER = checksum(GATEWAY_KEY.address)
NODE = checksum(NODE_KEY.address)
ATTEMPT = "0123456789abcdef0123456789abcdef"
OTHER_KEY = KeySigner(b"\x33" * 32)


async def test_a_ticket_pays_for_an_image(tmp_path: Path) -> None:
    chain = funded_chain()
    async with paid_node(tmp_path, chain) as node, PayingBuyer(node) as buyer:
        quote = await buyer.quote()
        answer = await buyer.pay(buyer.payment(quote), {JOB_ID: ATTEMPT})
        assert answer.status == 200, answer.text
        assert answer.headers[FEE] == str(COST)
        assert credit_of(answer) == quote.value
        receipt = (await buyer.receipt(ATTEMPT)).json
        assert receipt["charged"] == str(COST)
        assert receipt["state"] == "delivered"
        assert Fraction(receipt["credited"]) == quote.value


async def test_case_24_payers_sign_what_is_quoted_and_one_ticket_does(tmp_path: Path) -> None:
    chain = funded_chain()
    head = await chain.head()
    async with paid_node(tmp_path, chain) as node, PayingBuyer(node) as buyer:
        params = (await buyer.quote()).params
        assert params.recipient == NODE_KEY.address
        assert params.expiration_block == head.l1_block + 40
        assert tickets_needed(Fraction(0), COST, params.expected_value) == 1
        objection = payers_objection(
            params,
            1,
            orchestrator=NODE_KEY.address,
            now=Now(head.l1_block, head.last_initialized_round, (head.creation,)),
            funds=Funds(Wei(ETHER), Wei(ETHER)),
            limits=PayerLimits(),
        )
        assert objection is None


async def test_tickets_follow_the_size_of_what_is_asked_for(tmp_path: Path) -> None:
    chain = funded_chain()
    overrides: dict[str, Any] = {"payments": {"redeem_gas": 21_000, "max_face_value": 10**6}}
    async with paid_node(tmp_path, chain, **overrides) as node, PayingBuyer(node) as buyer:
        before = await buyer.quote()
        for _ in range(8):
            payment = buyer.payment(before, 16)
            answer = await buyer.pay(payment, width=128, height=128, num_images_per_prompt=4)
            assert answer.status == 200, answer.text
        after = await buyer.quote()
        assert 5 * before.value < after.value < 16 * before.value


async def test_winners_are_on_disk_and_the_chain_pays_for_them(tmp_path: Path) -> None:
    chain = funded_chain()
    async with paid_node(tmp_path, chain) as node, PayingBuyer(node) as buyer:
        quote = await buyer.quote()
        for _ in range(3):
            assert (await buyer.pay(buyer.payment(quote, 20))).status == 200
    winners = await in_books(tmp_path, all_winners)
    assert 5 < len(winners) < 55, "of 60 at about one in two"
    chain.mine(41)
    paid = sum(chain.redeem(winner.signed).amount for winner in winners)
    assert paid == 21_000 * len(winners)


async def test_the_signature_of_the_sender_decides_who_is_quoted_for(tmp_path: Path) -> None:
    """Case 27; who does not say who it is hears everything but ticket parameters."""
    wanted = job_capabilities(MODEL, "0.1.0")
    async with paid_node(tmp_path, funded_chain()) as node, Buyer(node) as unsigned:
        info = await unsigned.terms(wanted)
        assert (info.price, info.ticket_params) == (PRICE, None)
        answer = await unsigned.ask()
        assert refused(answer) == (403, "ErrSegSig")


async def test_case_27_nobody_spends_the_balance_of_another(tmp_path: Path) -> None:
    chain = funded_chain()
    chain.fund(OTHER_KEY.address, Wei(ETHER), Wei(ETHER))
    async with (
        paid_node(tmp_path, chain) as node,
        PayingBuyer(node) as buyer,
        PayingBuyer(node, OTHER_KEY) as thief,
    ):
        assert (await buyer.pay(buyer.payment(await buyer.quote(), 5))).status == 200
        as_another = Payment(sender=GATEWAY_KEY.address, expected_price=PRICE)
        assert refused(await thief.pay(as_another)) == (403, "ErrSegSig")
        assert refused(await thief.pay()) == (400, "Insufficient balance")
        stolen = replace(buyer.payment(await buyer.quote()), sender=OTHER_KEY.address)
        assert refused(await thief.pay(stolen)) == (
            400,
            "invalid recipientRand for ticket recipientRandHash",
        )


async def test_off_chain_nobody_is_quoted_tickets_and_no_credit_is_told(tmp_path: Path) -> None:
    async with running_node(tmp_path) as node, Buyer(node, GATEWAY_KEY) as buyer:
        assert (await buyer.terms(job_capabilities(MODEL, "0.1.0"))).ticket_params is None
        answer = await buyer.ask()
        assert answer.status == 200
        assert CREDIT not in answer.headers
    assert not (tmp_path / "data" / "ticket-secret.json").exists()


Payer = Callable[[PayingBuyer, Quote, MemoryChain], Payment]


def replayed(buyer: PayingBuyer, quote: Quote, _chain: MemoryChain) -> Payment:
    payment = buyer.payment(quote)
    return replace(payment, tickets=payment.tickets * 2)


def unsigned(buyer: PayingBuyer, quote: Quote, _chain: MemoryChain) -> Payment:
    payment = buyer.payment(quote)
    ticket = payment.tickets[0]
    return replace(payment, tickets=(replace(ticket, signature=bytes(65)),))


def too_many(buyer: PayingBuyer, quote: Quote, _chain: MemoryChain) -> Payment:
    return buyer.payment(replace(quote, nonces=iter(range(1, 602))), 601)


def without_creation(buyer: PayingBuyer, quote: Quote, _chain: MemoryChain) -> Payment:
    return replace(buyer.payment(quote), expiration_params=None)


def with_change(**changes: object) -> Payer:
    return lambda buyer, quote, _chain: changed(buyer.payment(quote), quote, **changes)


def at_price(price: Fraction | None) -> Payer:
    return lambda buyer, quote, _chain: replace(buyer.payment(quote), expected_price=price)


_NO_PRICE = (
    f"invalid expected price sent with payment err=expected price missing; {MODEL} costs 5/2 wei "
    "per pixel here"
)
_NOT_QUOTED = "invalid recipientRand for ticket recipientRandHash"
#: How a payment is made, what the node says to it, and how many tickets of it are credited. None: it
#: was not looked at, and no credit is told.
_BAD_PAYMENTS: dict[str, tuple[Payer, str, int | None]] = {
    "replayed": (
        replayed,
        f"invalid ticket senderNonce: already seen sender={SENDER} nonce=1",
        1,
    ),
    "unsigned": (unsigned, "invalid ticket signature", 0),
    "too many": (too_many, "601 tickets in a payment; at most 600", 0),
    "recipient": (with_change(recipient=Address(b"x" * 20)), "invalid ticket recipient", 0),
    "face value": (with_change(face_value=Wei(10**9)), _NOT_QUOTED, 0),
    "win probability": (with_change(win_prob=2**256 - 1), _NOT_QUOTED, 0),
    "expiration": (with_change(expiration_block=10**6), _NOT_QUOTED, 0),
    "seed": (with_change(seed=b"another"), _NOT_QUOTED, 0),
    "price": (at_price(PRICE * 2), _NOT_QUOTED, 0),
    "no creation round": (
        without_creation,
        "invalid payment: tickets without their parameters",
        None,
    ),
    "cheap": (
        at_price(PRICE / 2),
        f"TicketParams expired: the expected price 5/4 wei per pixel is below the 5/2 that {MODEL} costs here; ask for a new price",
        None,
    ),
    "no price": (at_price(None), _NO_PRICE, None),
}


@pytest.mark.parametrize("name", _BAD_PAYMENTS)
async def test_case_4_a_payment_that_does_not_do_is_refused_in_livepeers_words(
    tmp_path: Path, name: str
) -> None:
    make, words, worth = _BAD_PAYMENTS[name]
    engine, chain = FakeEngine(), funded_chain()
    async with paid_node(tmp_path, chain, engine) as node, PayingBuyer(node) as buyer:
        quote = await buyer.quote()
        answer = await buyer.pay(make(buyer, quote, chain))
        assert refused(answer) == (400, words)
        told = credit_of(answer) if CREDIT in answer.headers else None
        assert told == (None if worth is None else worth * quote.value)
        assert not engine.jobs


async def test_case_2_a_replay_in_another_request_brings_nothing(tmp_path: Path) -> None:
    async with paid_node(tmp_path, funded_chain()) as node, PayingBuyer(node) as buyer:
        payment = buyer.payment(await buyer.quote(), 10)
        assert (await buyer.pay(payment)).status == 200
        answer = await buyer.pay(payment, {JOB_ID: ATTEMPT})
        words = f"invalid ticket senderNonce: already seen sender={SENDER} nonce=1"
        assert refused(answer) == (400, words)
        assert credit_of(answer) == 0
        assert (await buyer.receipt(ATTEMPT)).status == 404


async def test_case_7_an_expired_quote_brings_no_credit(tmp_path: Path) -> None:
    chain = funded_chain()
    async with paid_node(tmp_path, chain) as node, PayingBuyer(node) as buyer:
        quote = await buyer.quote()
        chain.mine(40)
        await eventually(_moved_on(buyer, quote))
        answer = await buyer.pay(buyer.payment(quote, 20))
        assert refused(answer) == (400, "TicketParams expired")
        assert credit_of(answer) == 0
        assert refused(await buyer.pay()) == (400, "Insufficient balance")
    assert await in_books(tmp_path, all_winners), "they may still pay"


def _moved_on(buyer: PayingBuyer, quote: Quote) -> Callable[[], Awaitable[bool]]:
    async def has_moved() -> bool:
        newer = await buyer.quote()
        return newer.params.expiration_block >= quote.params.expiration_block + 40

    return has_moved


async def test_case_8_a_quote_of_a_round_that_is_too_old_is_refused(tmp_path: Path) -> None:
    chain = funded_chain()
    async with paid_node(tmp_path, chain) as node, PayingBuyer(node) as buyer:
        quote = await buyer.quote()
        # Shorter rounds than quotes live, as a vote or a development chain may have them.
        chain.round_length = 10
        chain.last_initialized = chain.current_round
        chain.pool[NODE_KEY.address] = 0
        chain.initialize_round()
        await eventually(_names_round(buyer, chain.last_initialized))
        assert refused(await buyer.pay(buyer.payment(quote))) == (400, "TicketParams expired")
        assert (await buyer.pay(buyer.payment(await buyer.quote()))).status == 200


def _names_round(buyer: PayingBuyer, number: int) -> Callable[[], Awaitable[bool]]:
    async def names() -> bool:
        return (await buyer.quote()).params.creation.number == number

    return names


async def test_case_8_where_the_chain_has_no_hash_the_round_before_is_named(
    tmp_path: Path,
) -> None:
    chain = funded_chain()
    before = chain.last_initialized
    chain.next_round(initialize=False)
    chain.initialize_round(bytes(32))
    async with paid_node(tmp_path, chain) as node, PayingBuyer(node) as buyer:
        quote = await buyer.quote()
        assert quote.params.creation.number == before
        assert (await buyer.pay(buyer.payment(quote))).status == 200


async def test_case_9_who_has_no_reserve_is_not_quoted(tmp_path: Path) -> None:
    async with paid_node(tmp_path, MemoryChain()) as node, PayingBuyer(node) as buyer:
        assert "is inactive in round" in await buyer.refusal()
    chain = funded_chain()
    async with (
        paid_node(tmp_path, chain) as node,
        PayingBuyer(node, OTHER_KEY) as stranger,
        PayingBuyer(node) as buyer,
    ):
        assert await stranger.refusal() == "insufficient sender reserve"
        assert await buyer.refusal() == ""


async def test_case_12_a_sender_that_unlocks_is_neither_quoted_nor_served(tmp_path: Path) -> None:
    chain = funded_chain()
    chain.unlock(GATEWAY_KEY.address)
    async with paid_node(tmp_path, chain) as node, PayingBuyer(node) as buyer:
        assert await buyer.refusal() == ""
        chain.next_round()
        await eventually(_refuses(buyer))
        soon = "the sender's deposit and reserve are set to unlock soon"
        assert await buyer.refusal() == soon
        answer = await buyer.pay(buyer.payment(await _old_quote(buyer, chain)))
        words = f"deposit and reserve for sender {SENDER} is set to unlock soon"
        assert refused(answer) == (400, words)


async def _old_quote(buyer: PayingBuyer, chain: MemoryChain) -> Quote:
    """From before the sender unlocked: given up, asked, and begun again."""
    funds = chain.funds[GATEWAY_KEY.address]
    round_, funds.withdraw_round = funds.withdraw_round, 0
    await eventually(_quotes(buyer))
    quote = await buyer.quote()
    funds.withdraw_round = round_
    await eventually(_refuses(buyer))
    return quote


def _refuses(buyer: PayingBuyer) -> Callable[[], Awaitable[bool]]:
    async def is_refused() -> bool:
        return await buyer.refusal() != ""

    return is_refused


def _quotes(buyer: PayingBuyer) -> Callable[[], Awaitable[bool]]:
    async def is_quoted() -> bool:
        return await buyer.refusal() == ""

    return is_quoted


async def test_case_13_an_inactive_node_says_so(tmp_path: Path) -> None:
    chain = funded_chain()
    async with paid_node(tmp_path, chain) as node, PayingBuyer(node) as buyer:
        quote = await buyer.quote()
        del chain.pool[NODE_KEY.address]
        await eventually(_refuses(buyer))
        words = f"orchestrator {NODE} is inactive in round {chain.current_round}, cannot process payments"
        assert await buyer.refusal() == words
        answer = await buyer.pay(buyer.payment(quote))
        assert refused(answer) == (400, words)
        chain.pool[NODE_KEY.address] = 0
        await eventually(_quotes(buyer))


async def test_case_30_a_paused_broker_ends_quotes_and_payments(tmp_path: Path) -> None:
    chain = funded_chain()
    async with paid_node(tmp_path, chain) as node, PayingBuyer(node) as buyer:
        quote = await buyer.quote()
        chain.is_paused = True
        await eventually(_refuses(buyer))
        words = "the TicketBroker is paused, cannot process payments"
        assert await buyer.refusal() == words
        assert refused(await buyer.pay(buyer.payment(quote))) == (400, words)


async def test_case_31_a_stale_chain_ends_quotes_and_sends_payers_elsewhere(
    tmp_path: Path,
) -> None:
    """Case 15 for as long as what was read last may be acted on."""
    chain = funded_chain()
    async with (
        paid_node(tmp_path / "patient", chain) as patient,
        PayingBuyer(patient) as buyer,
    ):
        quote = await buyer.quote()
        chain.problem = ChainUnavailableError("down")
        assert (await buyer.pay(buyer.payment(quote))).status == 200
    chain.problem = None
    brief = {"poll_seconds": 0.02, "stale_seconds": 0.3}
    folder = tmp_path / "brief"
    overrides = {"network": str(folder / "network.json"), **brief}
    async with paid_node(folder, chain, chain=overrides) as node, PayingBuyer(node) as buyer:
        await eventually(_quotes(buyer))
        quote = await buyer.quote()
        chain.problem = ChainUnavailableError("down")
        await eventually(_refuses(buyer))
        assert await buyer.refusal() == "the orchestrator cannot read its chain just now"
        answer = await buyer.pay(buyer.payment(quote))
        assert refused(answer) == (503, "insufficient capacity: chain_unavailable")
        chain.problem = None
        await eventually(_quotes(buyer))
        assert (await buyer.pay(buyer.payment(quote))).status == 200


async def test_case_25_free_work_needs_no_tickets_and_no_deposit(tmp_path: Path) -> None:
    chain = funded_chain()
    del chain.funds[GATEWAY_KEY.address]
    models = [{"id": MODEL, "path": tmp_path / "model", "price": "0"}]
    async with paid_node(tmp_path, chain, models=models) as node, PayingBuyer(node) as buyer:
        quote = await buyer.quote()
        assert (quote.params.face_value, quote.params.win_prob) == (0, 0)
        answer = await buyer.ask(price=Fraction(0))
        assert (answer.status, answer.headers[FEE], credit_of(answer)) == (200, "0", Fraction(0))


async def test_case_21_what_does_not_suffice_is_kept(tmp_path: Path) -> None:
    engine = FakeEngine()
    async with paid_node(tmp_path, funded_chain(), engine) as node, PayingBuyer(node) as buyer:
        quote = await buyer.quote()
        answer = await buyer.pay(buyer.payment(quote), {JOB_ID: ATTEMPT}, num_images_per_prompt=3)
        assert refused(answer) == (400, "Insufficient balance")
        assert credit_of(answer) == quote.value
        receipt = (await buyer.receipt(ATTEMPT)).json
        assert (receipt["state"], receipt["charged"]) == ("refused", "0")
        assert Fraction(receipt["credited"]) == quote.value
        assert not engine.jobs
        answer = await buyer.pay(buyer.payment(quote, 2), num_images_per_prompt=3)
        assert answer.status == 200, answer.text
        assert refused(await buyer.pay()) == (400, "Insufficient balance")


async def test_case_21_fifty_at_once_spend_one_balance_once(tmp_path: Path) -> None:
    engine = FakeEngine(step_seconds=0.002)
    async with paid_node(tmp_path, funded_chain(), engine) as node, PayingBuyer(node) as buyer:
        quote = await buyer.quote()
        assert (await buyer.pay(buyer.payment(quote, 21))).status == 200
        answers = await asyncio.gather(*(buyer.pay() for _ in range(50)))
        served = [answer for answer in answers if answer.status == 200]
        assert len(served) == 20
        assert {refused(answer) for answer in answers if answer.status != 200} == {
            (400, "Insufficient balance")
        }
        assert len(engine.jobs) == 21
        status = (await buyer.get("/status", admin=True)).json
        assert (status["earned_since_start"], status["held"]) == (str(21 * COST), "0")


async def test_case_22_a_job_that_fails_costs_nothing_and_its_credit_stays(
    tmp_path: Path,
) -> None:
    engine = FakeEngine()
    engine.failures.append(JobFailedError(FailureKind.WORKER_CRASHED, "odd"))
    async with paid_node(tmp_path, funded_chain(), engine) as node, PayingBuyer(node) as buyer:
        quote = await buyer.quote()
        answer = await buyer.pay(buyer.payment(quote), {JOB_ID: ATTEMPT})
        assert (answer.status, credit_of(answer)) == (500, quote.value)
        receipt = (await buyer.receipt(ATTEMPT)).json
        assert (receipt["state"], receipt["charged"]) == ("failed", "0")
        assert (await buyer.pay()).status == 200
        assert refused(await buyer.pay()) == (400, "Insufficient balance")


async def test_case_22_a_job_that_is_cancelled_costs_nothing_and_its_credit_stays(
    tmp_path: Path,
) -> None:
    engine = FakeEngine(step_seconds=0.02)
    async with paid_node(tmp_path, funded_chain(), engine) as node, PayingBuyer(node) as buyer:
        quote = await buyer.quote()
        payment = buyer.payment(quote)
        asking = asyncio.ensure_future(
            buyer.pay(payment, {JOB_ID: ATTEMPT}, num_inference_steps=100)
        )
        await eventually(_has_receipt(buyer, "open"))
        asking.cancel()
        await eventually(_has_receipt(buyer, "cancelled"))
        receipt = (await buyer.receipt(ATTEMPT)).json
        assert (Fraction(receipt["credited"]), receipt["charged"]) == (quote.value, "0")
        assert (await buyer.pay()).status == 200


def _has_receipt(buyer: PayingBuyer, state: str) -> Callable[[], Awaitable[bool]]:
    async def is_told() -> bool:
        answer = await buyer.receipt(ATTEMPT)
        return answer.status == 200 and answer.json["state"] == state

    return is_told


async def test_who_finds_no_place_has_not_paid(tmp_path: Path) -> None:
    """Capacity goes before payment: the tickets are as good as before."""
    engine = FakeEngine(step_seconds=0.02)
    queue = {"max_waiting": 0}
    async with (
        paid_node(tmp_path, funded_chain(), engine, queue=queue) as node,
        PayingBuyer(node) as buyer,
    ):
        quote = await buyer.quote()
        busy = [
            asyncio.ensure_future(buyer.pay(buyer.payment(quote), num_inference_steps=40))
            for _ in range(2)
        ]
        await eventually(_is_full(engine))
        payment = buyer.payment(quote)
        answer = await buyer.pay(payment, {JOB_ID: ATTEMPT})
        assert answer.status == 503
        assert CREDIT not in answer.headers
        assert (await buyer.receipt(ATTEMPT)).status == 404
        assert [answer.status for answer in await asyncio.gather(*busy)] == [200, 200]
        assert (await buyer.pay(payment)).status == 200


def _is_full(engine: FakeEngine) -> Callable[[], Awaitable[bool]]:
    async def is_full() -> bool:
        return engine.active == 2

    return is_full


async def test_case_28_a_data_directory_serves_one_chain(tmp_path: Path) -> None:
    async with paid_node(tmp_path, funded_chain()):
        pass
    secret = tmp_path / "data" / "ticket-secret.json"
    assert secret.stat().st_mode & 0o777 == 0o600
    secret.write_text(secret.read_text().replace("412346", "42161"))
    with pytest.raises(
        ConfigError, match=r"payments of chain 42161, and chain\.network is chain 412346"
    ):
        async with paid_node(tmp_path, funded_chain()):
            pass
