"""A node on contracts that run: what is quoted, paid and refused there."""

from contextlib import AsyncExitStack
from pathlib import Path

import pytest

from network.devnet.deployment import ETHER, account_of
from network.errors import ConfigError
from network.runtime.clock import SystemClock
from network.runtime.database import open_database
from network.units import Wei
from node.accounting.journal import MIGRATIONS
from node.app import RunningNode, open_node
from node.payments.redemptions import Entry, Redemptions, State
from tests.devnet import CHAIN_ID, Devnet
from tests.node.fakes import FakeEngine
from tests.node.nodes import GATEWAY_KEY, NODE_KEY, eventually
from tests.node.payments.paid_nodes import (
    PayingBuyer,
    books_of,
    funded_chain,
    network_file,
    paid_node,
    paid_settings,
    refused,
)

NODE = account_of(b"\x11" * 32)
GATEWAY = account_of(b"\x22" * 32)


async def _node_on(
    devnet: Devnet, folder: Path, stack: AsyncExitStack, chain_id: int = CHAIN_ID
) -> RunningNode:
    settings = await paid_settings(folder)
    contracts = devnet.contracts
    network_file(
        folder,
        devnet.chain.url,
        chain_id=chain_id,
        controller=contracts.controller,
        ai_service_registry=contracts.addresses["AIServiceRegistry"],
    )
    node = open_node(settings, engine_opener=FakeEngine().opener)
    return await stack.enter_async_context(node)


async def test_a_node_is_paid_on_contracts_that_run_and_says_why_where_it_is_not(
    devnet: Devnet, tmp_path: Path
) -> None:
    """Cases 12, 13 and 30, as the contracts themselves tell them."""
    for account in (NODE, GATEWAY):
        await devnet.rpc("anvil_setBalance", account.address, hex(100 * ETHER))
    await devnet.contracts.fund_sender(GATEWAY, Wei(ETHER), Wei(ETHER))
    # What a block costs here at most; a redemption is to be worth its gas.
    await devnet.rpc("anvil_setNextBlockBaseFeePerGas", hex(1))
    async with AsyncExitStack() as stack:
        node = await _node_on(devnet, tmp_path, stack)
        buyer = await stack.enter_async_context(PayingBuyer(node))
        assert "is inactive in round" in await buyer.refusal()
        await devnet.contracts.register_orchestrator(NODE, Wei(100 * ETHER), node.url)
        await devnet.next_round()

        async def is_quoted() -> bool:
            return await buyer.refusal() == ""

        await eventually(is_quoted, 30)
        quote = await buyer.quote()
        answer = await buyer.pay(buyer.payment(quote, 2))
        assert answer.status == 200, answer.text
        assert (await buyer.pay()).status == 200
        assert refused(await buyer.pay()) == (400, "Insufficient balance")

        controller = devnet.contracts.contract("Controller")
        await devnet.contracts.send(devnet.contracts.owner, controller.functions.pause())

        async def is_paused() -> bool:
            return "is paused" in await buyer.refusal()

        await eventually(is_paused, 30)
        answer = await buyer.pay(buyer.payment(quote))
        assert refused(answer) == (400, "the TicketBroker is paused, cannot process payments")


async def test_an_endpoint_of_another_chain_ends_the_start(devnet: Devnet, tmp_path: Path) -> None:
    async with AsyncExitStack() as stack:
        with pytest.raises(ConfigError, match=r"chain\.rpc: .*chain") as caught:
            await _node_on(devnet, tmp_path, stack, chain_id=42161)
    assert str(CHAIN_ID) in str(caught.value)


async def test_case_10_what_senders_owe_is_known_again_after_a_restart_less_what_is_redeemed(
    tmp_path: Path,
) -> None:
    """A sender whose reserve is spoken for by tickets that won is quoted no more of it."""
    chain = funded_chain()
    funds = chain.funds[GATEWAY_KEY.address]
    funds.deposit, funds.reserve = 0, 400_000
    async with paid_node(tmp_path, chain) as node, PayingBuyer(node) as buyer:
        quote = await buyer.quote()
        assert (await buyer.pay(buyer.payment(quote, 60))).status == 200
        assert await buyer.refusal() == "insufficient sender reserve"
    async with paid_node(tmp_path, chain) as node, PayingBuyer(node) as buyer:
        assert await buyer.refusal() == "insufficient sender reserve"
    async with open_database(books_of(tmp_path), MIGRATIONS) as database:
        books = Redemptions(database, SystemClock())
        records = await books.unfinished()
        ends = [(r, Entry(r.winner.ticket_hash, State.WRITTEN_OFF)) for r in records]
        await books.write(ends)
    async with paid_node(tmp_path, chain) as node, PayingBuyer(node) as buyer:
        assert await buyer.refusal() == ""
    assert {record.winner.signed.ticket.recipient for record in records} == {NODE_KEY.address}
