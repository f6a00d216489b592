"""A node that ends, in order or not, keeps what was paid in, and takes no ticket twice."""

import asyncio
from fractions import Fraction
from pathlib import Path

from sqlalchemy import Connection, func, select
from structlog.testing import capture_logs
from typing_extensions import override

from network.chain.model import SenderInfo
from network.identity import checksum
from network.runtime.database import open_database
from network.units import Address
from network.wire.headers import CREDIT, JOB_ID
from node.accounting.journal import MIGRATIONS
from node.accounting.tables import payments, ticket_nonces
from node.payments.winnings import all_winners
from tests.node.fakes import FakeEngine
from tests.node.nodes import GATEWAY_KEY, Buyer, eventually, running_node
from tests.node.payments.paid_nodes import (
    FEE,
    MemoryChain,
    PayingBuyer,
    as_killed,
    books_of,
    credit_of,
    funded_chain,
    in_books,
    paid_node,
    refused,
)

ATTEMPT = "0123456789abcdef0123456789abcdef"
SEEN = f"invalid ticket senderNonce: already seen sender={checksum(GATEWAY_KEY.address)} nonce="


def _rows(connection: Connection) -> tuple[int, int]:
    """How many payments and how many tickets are in the books."""
    counts = [
        connection.scalar(select(func.count()).select_from(table))
        for table in (payments, ticket_nonces)
    ]
    return counts[0] or 0, counts[1] or 0


async def test_case_3_a_restart_keeps_quotes_credit_and_nonces(tmp_path: Path) -> None:
    chain = funded_chain()
    async with paid_node(tmp_path, chain) as node, PayingBuyer(node) as buyer:
        quote = await buyer.quote()
        payment = buyer.payment(quote, 3)
        assert (await buyer.pay(payment)).status == 200
    async with paid_node(tmp_path, chain) as node, PayingBuyer(node) as buyer:
        answer = await buyer.pay(payment)
        assert refused(answer) == (400, f"{SEEN}1")
        assert credit_of(answer) == 0
        assert [(await buyer.pay()).status for _ in range(3)] == [200, 200, 400]
        assert (await buyer.pay(buyer.payment(quote))).status == 200
        status = (await buyer.get("/status", admin=True)).json
        assert status["earned_since_start"] == str(3 * FEE)


async def test_an_attempt_is_not_repeated_after_a_restart(tmp_path: Path) -> None:
    chain = funded_chain()
    async with paid_node(tmp_path, chain) as node, PayingBuyer(node) as buyer:
        payment = buyer.payment(await buyer.quote(), 2)
        assert (await buyer.pay(payment, {JOB_ID: ATTEMPT})).status == 200
    async with paid_node(tmp_path, chain) as node, PayingBuyer(node) as buyer:
        assert (await buyer.pay(None, {JOB_ID: ATTEMPT})).status == 409
        receipt = (await buyer.receipt(ATTEMPT)).json
        assert (receipt["state"], receipt["charged"]) == ("delivered", str(FEE))


async def test_what_was_owed_off_chain_is_no_debt_on_chain(tmp_path: Path) -> None:
    async with running_node(tmp_path) as node, PayingBuyer(node) as buyer:
        assert (await buyer.ask()).status == 200
    async with paid_node(tmp_path, funded_chain()) as node, PayingBuyer(node) as buyer:
        assert (await buyer.pay(buyer.payment(await buyer.quote()))).status == 200


async def test_case_19_killed_before_the_payment_is_on_disk_the_tickets_are_good_again(
    tmp_path: Path,
) -> None:
    first, chain = tmp_path / "first", funded_chain()
    async with paid_node(first, chain) as node, PayingBuyer(node) as buyer:
        payment = buyer.payment(await buyer.quote(), 20)
        killed = as_killed(first, tmp_path / "killed")
        # Taken by the first process, which died before it wrote any of it.
        assert (await buyer.pay(payment)).status == 200
    async with paid_node(killed, chain) as node, PayingBuyer(node) as buyer:
        answer = await buyer.pay(payment)
        assert answer.status == 200, answer.text
    assert await in_books(killed, _rows) == (1, 20)


async def test_case_19_killed_at_work_the_credit_and_the_winners_are_there_and_nothing_is_charged(
    tmp_path: Path,
) -> None:
    first, chain, engine = tmp_path / "first", funded_chain(), FakeEngine(step_seconds=60)
    async with paid_node(first, chain, engine) as node, PayingBuyer(node) as buyer:
        quote = await buyer.quote()
        payment = buyer.payment(quote, 20)
        asking = asyncio.ensure_future(buyer.pay(payment, {JOB_ID: ATTEMPT}))

        async def is_at_work() -> bool:
            return engine.active == 1

        await eventually(is_at_work)
        killed = as_killed(first, tmp_path / "killed")
        asking.cancel()
        await asyncio.gather(asking, return_exceptions=True)
    winners = await in_books(first, all_winners)
    assert winners
    async with paid_node(killed, chain) as node, PayingBuyer(node) as buyer:
        receipt = (await buyer.receipt(ATTEMPT)).json
        assert (receipt["state"], receipt["charged"]) == ("interrupted", "0")
        assert Fraction(receipt["credited"]) == 20 * quote.value
        answers = [await buyer.pay() for _ in range(21)]
        assert [answer.status for answer in answers] == [200] * 20 + [400]
        assert refused(await buyer.pay(payment)) == (400, f"{SEEN}1")
    assert await in_books(killed, all_winners) == winners


async def test_case_19_killed_after_the_settlement_the_job_is_charged_once(
    tmp_path: Path,
) -> None:
    """The answer may not have left: the gateway learns from the receipt that it was charged."""
    first, chain = tmp_path / "first", funded_chain()
    async with paid_node(first, chain) as node, PayingBuyer(node) as buyer:
        quote = await buyer.quote()
        assert (await buyer.pay(buyer.payment(quote, 2), {JOB_ID: ATTEMPT})).status == 200
        killed = as_killed(first, tmp_path / "killed")
    async with paid_node(killed, chain) as node, PayingBuyer(node) as buyer:
        receipt = (await buyer.receipt(ATTEMPT)).json
        assert (receipt["state"], receipt["charged"]) == ("delivered", str(FEE))
        assert [(await buyer.pay()).status for _ in range(2)] == [200, 400]


class HangingChain(MemoryChain):
    """Says nothing of senders before it is let."""

    def __init__(self) -> None:
        super().__init__()
        self.answers = asyncio.Event()

    @override
    async def sender_info(self, sender: Address) -> SenderInfo:
        await self.answers.wait()
        return await super().sender_info(sender)


async def test_a_receipt_is_open_while_the_payment_is_looked_at(tmp_path: Path) -> None:
    """A gateway that asks then must not take its tickets for lost."""
    chain = funded_chain(HangingChain())
    chain.answers.set()
    async with paid_node(tmp_path, chain) as node, PayingBuyer(node) as buyer:
        quote = await buyer.quote()
    chain.answers.clear()
    async with (
        paid_node(tmp_path, chain) as node,
        PayingBuyer(node) as buyer,
        Buyer(node) as unsigned,
    ):
        # A token without a quote, which would wait as well.
        token = (await unsigned.terms()).auth_token
        asking = asyncio.ensure_future(
            buyer.pay(buyer.payment(quote), {JOB_ID: ATTEMPT}, token=token)
        )

        async def is_told() -> bool:
            return (await buyer.receipt(ATTEMPT)).status == 200

        await eventually(is_told)
        assert (await buyer.receipt(ATTEMPT)).json == {
            "credited": "0/1",
            "charged": "0",
            "state": "open",
        }
        chain.answers.set()
        assert (await asking).status == 200
        assert (await buyer.receipt(ATTEMPT)).json["state"] == "delivered"


async def test_what_could_not_be_written_down_is_not_told_as_credit(tmp_path: Path) -> None:
    """Case 2: the books know a nonce that the process does not; all of the payment is void."""
    engine = FakeEngine()
    async with paid_node(tmp_path, funded_chain(), engine) as node, PayingBuyer(node) as buyer:
        quote = await buyer.quote()
        row = {
            "recipient_rand_hash": quote.params.recipient_rand_hash.hex(),
            "nonce": 2,
            "expiration_block": quote.params.expiration_block,
        }
        async with open_database(books_of(tmp_path), MIGRATIONS) as database:
            await database.append([(ticket_nonces, row)])
        # Unprinted: how a console shows a traceback reads files.
        with capture_logs():
            answer = await buyer.pay(buyer.payment(quote, 3), {JOB_ID: ATTEMPT})
        assert refused(answer) == (500, "the job could not be written down")
        assert CREDIT not in answer.headers
        assert (await buyer.receipt(ATTEMPT)).status == 404
        assert refused(await buyer.pay()) == (400, "Insufficient balance")
        assert not engine.jobs


async def test_case_5_a_restart_does_not_bring_an_expired_quote_back(tmp_path: Path) -> None:
    """However far behind the endpoint is that the new process asks."""
    chain = funded_chain()
    async with paid_node(tmp_path, chain) as node, PayingBuyer(node) as buyer:
        old = await buyer.quote()
        began = chain.l1_block

        async def is_later() -> bool:
            return (await buyer.quote()).params.expiration_block >= began + 81

        chain.mine(41)
        await eventually(is_later)
        assert (await buyer.pay(buyer.payment(await buyer.quote()))).status == 200
    chain.l1_block = began
    async with paid_node(tmp_path, chain) as node, PayingBuyer(node) as buyer:
        answer = await buyer.pay(buyer.payment(old))
        assert refused(answer) == (400, "TicketParams expired")
        assert credit_of(answer) == 0
