"""A node that ends, in order or not, keeps what was paid in, and takes no ticket twice."""

import asyncio
from fractions import Fraction
from pathlib import Path

from sqlalchemy import Connection, func, select

from network.identity import checksum
from network.wire.headers import JOB_ID
from node.accounting.tables import payments, ticket_nonces
from node.payments.winnings import all_winners
from tests.node.fakes import FakeEngine
from tests.node.nodes import GATEWAY_KEY, eventually, running_node
from tests.node.payments.paid_nodes import (
    FEE,
    PayingBuyer,
    as_killed,
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
