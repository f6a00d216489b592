"""On contracts that run: go-livepeer's kind of gateway at our node, our gateway at its kind of orchestrator.

What one side pays is what the other counts, and its winning tickets are money.
"""

import asyncio
from dataclasses import replace
from fractions import Fraction
from pathlib import Path

from eth_account.signers.local import LocalAccount

from network.chain.contracts import open_chain
from network.chain.model import SignedTicket
from network.chain.profiles import profile_of
from network.devnet.deployment import ETHER, account_of
from network.identity import KeySigner, checksum
from network.runtime.clock import SystemClock
from network.units import Wei
from node.app import open_node
from node.payments.winnings import all_winners
from tests.devnet import CHAIN_ID, Devnet
from tests.gateway.test_app import serving as serving_gateway
from tests.gateway.test_app import settings_for as gateway_settings
from tests.livepeer.go_gateway import gateway
from tests.livepeer.go_orchestrator import GoModel, GoOrchestrator
from tests.livepeer.go_port import serving
from tests.livepeer.go_till import TICKET_VALUE, GoTill
from tests.livepeer.test_gateways_at_our_node import COST, SMALL, Clock, earned
from tests.network.devnet.redeeming import Bench, Redemption
from tests.node.fakes import MODEL, FakeEngine
from tests.node.nodes import GATEWAY_KEY, eventually
from tests.node.payments.paid_nodes import in_books, network_file, paid_settings

NODE = account_of(b"\x11" * 32)
#: Of the test's key in both roles: that of a scripted gateway, and of ours.
PAYER = account_of(b"\x22" * 32)
PRICE = Fraction(5_000_000)


async def ready(devnet: Devnet, *accounts: LocalAccount) -> None:
    """Ether for all, and a deposit and a reserve for the payer."""
    for account in accounts:
        await devnet.rpc("anvil_setBalance", account.address, hex(100 * ETHER))
    await devnet.contracts.fund_sender(PAYER, Wei(ETHER), Wei(ETHER))
    await devnet.rpc("anvil_setNextBlockBaseFeePerGas", hex(1))


def written_network(devnet: Devnet, folder: Path) -> Path:
    contracts = devnet.contracts
    return network_file(
        folder,
        devnet.chain.url,
        chain_id=CHAIN_ID,
        controller=contracts.controller,
        ai_service_registry=contracts.addresses["AIServiceRegistry"],
    )


async def redeemed(devnet: Devnet, by: LocalAccount, winner: SignedTicket) -> int:
    """Wei that the contract paid for it."""
    ticket = winner.ticket
    fields = [
        checksum(ticket.recipient),
        checksum(ticket.sender),
        ticket.face_value,
        ticket.win_prob,
        ticket.sender_nonce,
        ticket.recipient_rand_hash,
        ticket.creation.aux_data,
    ]
    bench = Bench(devnet, by, PAYER)
    receipt = await bench.redeem(Redemption(fields, winner.signature, winner.recipient_rand))
    return sum(bench.paid(receipt))


async def test_a_gateway_of_go_livepeer_pays_our_node(devnet: Devnet, tmp_path: Path) -> None:
    await ready(devnet, NODE, PAYER)
    settings = await paid_settings(tmp_path)
    path = written_network(devnet, tmp_path)
    profile = await asyncio.to_thread(profile_of, str(path))
    assert profile is not None
    async with (
        open_node(settings, engine_opener=FakeEngine().opener) as node,
        open_chain(profile, profile.rpc, SystemClock()) as chain,
    ):
        await devnet.contracts.register_orchestrator(NODE, Wei(100 * ETHER), node.url)
        await devnet.next_round()
        async with gateway(node.url, signer=GATEWAY_KEY, now=Clock()) as go:
            go.funds = await chain.sender_info(GATEWAY_KEY.address)

            async def is_found() -> bool:
                go.head = await chain.head()
                return bool(await go.discover(MODEL))

            await eventually(is_found, 30)
            for number in range(1, 13):
                await go.text_to_image(**SMALL)
                assert await earned(node) == number * COST
            assert not go.suspended
            paid = sum(sent.tickets for sent in go.sent)
            (session,) = go.sessions
            assert session.balance >= 0
    winners = await in_books(tmp_path, all_winners)
    # About every second ticket wins 21,000 wei, whoever they are of.
    assert 0 < len(winners) <= paid
    assert await redeemed(devnet, NODE, winners[0].signed) == 21_000


async def test_our_gateway_pays_an_orchestrator_of_go_livepeer(
    devnet: Devnet, tmp_path: Path
) -> None:
    orchestrator = await devnet.orchestrator()
    await ready(devnet, PAYER)
    await devnet.next_round()
    path = written_network(devnet, tmp_path)
    profile = await asyncio.to_thread(profile_of, str(path))
    assert profile is not None
    async with open_chain(profile, profile.rpc, SystemClock()) as chain:
        till = GoTill(await chain.head(), key=KeySigner(bytes(orchestrator.key)))
        await till.look(chain, GATEWAY_KEY.address)
    # Gas costs nearly nothing here, and every second ticket wins.
    till.head = replace(till.head, gas_price=Wei(1))
    till.max_face_value = 2 * TICKET_VALUE
    go = GoOrchestrator(till, {"m": GoModel(PRICE)}, auto_adjust=False, now=SystemClock().now)
    async with serving(go, tmp_path):
        chain_options = {"network": str(path), "poll_seconds": 0.1}
        settings = gateway_settings(tmp_path, go.uri, chain=chain_options)
        async with serving_gateway(settings) as stage:
            for _ in range(8):
                answer = await stage.post()
                assert answer.status == 200, await answer.text()
                assert answer.headers["X-Limner-Orchestrator"] == go.uri
                assert answer.headers["Limner-Fee"] == str(64 * 64 * PRICE)
            payments = (await stage.status())["payments"]
            left = till.balance(GATEWAY_KEY.address, "27_m")
            assert int(payments["credit_wei"]) == int(left) >= 0
            assert till.debited == 8 * 64 * 64 * PRICE
    assert go.downloads, "its images were links"
    assert 0 < len(till.winners) < till.tickets
    assert await redeemed(devnet, orchestrator, till.winners[0]) == 2 * TICKET_VALUE
