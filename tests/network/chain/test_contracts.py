"""Our client against the contracts: what is sent, what is read, and what events come to."""

from dataclasses import replace

import orjson
import pytest

from network.chain.contracts import LivepeerChain, open_chain
from network.chain.events import logs_between, parse_receipt, receipt_json
from network.chain.model import (
    Call,
    ChainError,
    ChainUnavailableError,
    Receipt,
    RefusedError,
    RevertedError,
    WrongChainError,
)
from network.chain.profiles import Profile
from network.chain.rpc import open_rpc
from network.devnet.deployment import account_of
from network.identity import KeySigner, keccak, parse_address
from network.runtime.clock import SystemClock
from network.units import Address, Wei
from tests.devnet import CHAIN_ID, OWNER_KEY, Devnet
from tests.network.chain.endpoints import FakeEndpoint, RpcRefusal, endpoints
from tests.network.chain.test_rpc import TestClock
from tests.network.chain.worlds import DevnetWorld, winner

OWNER = KeySigner(OWNER_KEY)
ETHER = 10**18


class Bench:
    """Sends calls by real accounts, and gives our receipt of each."""

    def __init__(self, devnet: Devnet, chain: LivepeerChain) -> None:
        self.devnet, self.chain = devnet, chain
        self.world = DevnetWorld(devnet, chain)

    async def send(self, key: bytes, call: Call) -> Receipt:
        signer = KeySigner(key)
        gas = await self.chain.estimate_gas(signer.address, call)
        to = self.devnet.web3.to_checksum_address(call.to)
        sent = await self.devnet.contracts.send(
            account_of(key), {"to": to, "data": call.data, "gas": gas + gas // 4}, call.value
        )
        receipt = await self.chain.receipt(bytes(sent["transactionHash"]))
        assert receipt is not None
        return receipt


@pytest.fixture
def bench(devnet: Devnet, chain: LivepeerChain) -> Bench:
    return Bench(devnet, chain)


async def test_a_gateway_funds_unlocks_and_withdraws(bench: Bench, chain: LivepeerChain) -> None:
    key = bytes((await bench.devnet.account()).key)
    sender = KeySigner(key).address
    calls = await chain.calls()

    await bench.send(key, calls.fund_deposit(Wei(5)))
    await bench.send(key, calls.fund_reserve(Wei(7)))
    await bench.send(key, calls.fund_deposit_and_reserve(Wei(100), Wei(200)))
    info = await chain.sender_info(sender)
    assert (info.deposit, info.reserve_remaining) == (105, 207)

    await bench.send(key, calls.unlock())
    assert (await chain.sender_info(sender)).withdraw_round > 0
    await bench.send(key, calls.cancel_unlock())
    assert (await chain.sender_info(sender)).withdraw_round == 0
    await bench.send(key, calls.unlock())
    with pytest.raises(RevertedError) as refused:
        await chain.estimate_gas(sender, calls.withdraw())
    assert refused.value.reason == "account is locked"
    await bench.devnet.next_round(await chain.unlock_period())
    await bench.send(key, calls.withdraw())
    info = await chain.sender_info(sender)
    assert (info.deposit, info.reserve_remaining) == (0, 0)


async def test_an_orchestrator_bonds_registers_and_is_rewarded(
    bench: Bench, chain: LivepeerChain
) -> None:
    account = await bench.devnet.account()
    key = bytes(account.key)
    address = KeySigner(key).address
    mint = bench.devnet.contracts.contract("LivepeerToken").functions.mint(account.address, 50)
    await bench.devnet.contracts.send(account, mint)
    calls = await chain.calls()
    assert await chain.token_balance(address) == 50

    await bench.send(key, calls.approve(Wei(50)))
    assert await chain.token_allowance(address) == 50
    await bench.send(key, calls.bond(Wei(50), address))
    await bench.send(key, calls.transcoder(100_000, 500_000))
    await bench.send(key, calls.set_service_uri("https://127.0.0.1:1"))
    await bench.send(key, calls.set_service_uri("https://127.0.0.1:2", ai=False))
    stake = await chain.delegator(address)
    assert (stake.bonded, stake.delegate) == (50, address)
    assert await chain.service_uri(address) == "https://127.0.0.1:1"
    assert await chain.service_uri(address, ai=False) == "https://127.0.0.1:2"

    await bench.devnet.next_round(initialize=False)
    await bench.send(key, calls.initialize_round())
    head = await chain.head()
    assert head.is_round_initialized
    assert await chain.last_reward_round(address) < head.current_round
    await bench.send(key, calls.reward())
    assert await chain.last_reward_round(address) == head.current_round
    assert await chain.is_round_locked() is False
    assert await chain.round_length() == 20


async def test_the_pool_is_found_with_its_addresses(bench: Bench, chain: LivepeerChain) -> None:
    small = await bench.devnet.orchestrator(stake=10, uri="https://127.0.0.1:10")
    large = await bench.devnet.orchestrator(stake=20, uri="https://127.0.0.1:20")
    found = await chain.orchestrators()
    assert [(o.address, o.service_uri) for o in found] == [
        (parse_address(large.address), "https://127.0.0.1:20"),
        (parse_address(small.address), "https://127.0.0.1:10"),
    ]


async def test_a_batch_tells_for_each_ticket_what_it_moved_case_11(
    bench: Bench, chain: LivepeerChain
) -> None:
    """One pays in full, one in part, one nothing, and one is refused in silence."""
    recipient, _other = await bench.world.orchestrator(), await bench.world.orchestrator()
    sender = await bench.world.sender(100, 1000)
    await bench.world.next_round()
    share = 1000 // (await chain.head()).pool_size
    tickets = [
        await winner(chain, sender, recipient.address, face_value, nonce)
        for nonce, face_value in enumerate([60, 5000, 5000])
    ]
    forged = replace(tickets[0], signature=tickets[1].signature)
    calls = await chain.calls()

    receipt = await bench.send(OWNER_KEY, calls.redeem_batch([forged, *tickets]))

    payouts = await chain.payouts(receipt)
    assert [(p.ticket_hash, p.amount) for p in payouts] == [
        (tickets[0].ticket.hash, 60),
        (tickets[1].ticket.hash, 40 + share),
        (tickets[2].ticket.hash, 0),
    ]
    assert {p.transaction_hash for p in payouts} == {receipt.transaction_hash}
    found = await chain.redeemed(recipient.address, 0, receipt.block_number)
    assert found == (receipt.transaction_hash,)
    assert await chain.redeemed(sender.address, 0, receipt.block_number) == ()
    fees = await chain.pending_fees(recipient.address, (await chain.head()).current_round)
    assert fees == 100 + share
    await bench.send(
        bench.world._keys[recipient.address], calls.withdraw_fees(sender.address, Wei(10))
    )
    assert parse_receipt(orjson.loads(receipt_json(receipt))) == receipt


async def test_a_redemption_by_anybody_is_estimated_with_its_refusal(
    bench: Bench, chain: LivepeerChain
) -> None:
    recipient = await bench.world.orchestrator()
    sender = await bench.world.sender(100, 1000)
    await bench.world.next_round()
    ticket = await winner(chain, sender, recipient.address, 60)
    call = (await chain.calls()).redeem(ticket)
    assert 100_000 < await chain.estimate_gas(OWNER.address, call) < 400_000
    await bench.send(OWNER_KEY, call)
    with pytest.raises(RevertedError) as refused:
        await chain.estimate_gas(OWNER.address, call)
    assert refused.value.reason == "ticket is used"


async def test_contracts_that_moved_are_found_again_case_30(
    bench: Bench, chain: LivepeerChain
) -> None:
    contracts = bench.devnet.contracts
    before = (await chain.calls()).fund_deposit(Wei(1)).to
    moved = contracts.addresses["ServiceRegistry"]
    change = contracts.contract("Controller").functions.setContractInfo(
        keccak(b"TicketBroker"), moved, bytes(20)
    )
    await contracts.send(contracts.owner, change)
    assert (await chain.calls()).fund_deposit(Wei(1)).to == before

    await chain.resolve()

    assert (await chain.calls()).fund_deposit(Wei(1)).to == parse_address(moved)
    with pytest.raises(ChainError):
        await chain.sender_info(OWNER.address)


async def test_another_contract_at_the_address_is_told(devnet: Devnet, profile: Profile) -> None:
    wrong = replace(profile, controller=Address(b"\x01" * 20))
    async with open_chain(wrong, (devnet.chain.url,), SystemClock()) as chain:
        with pytest.raises(ChainError, match="getContract"):
            await chain.head()
    wrong = replace(profile, chain_id=CHAIN_ID + 1)
    with pytest.raises(WrongChainError, match=f"{CHAIN_ID}.*{CHAIN_ID + 1}"):
        async with open_chain(wrong, (devnet.chain.url,), SystemClock()):
            pytest.fail("opened")


async def test_a_start_without_an_endpoint_goes_on_when_one_comes_case_15(
    devnet: Devnet, profile: Profile
) -> None:
    """The first endpoint is down for good, and nothing has been read when the chain is opened."""
    async with endpoints(FakeEndpoint(CHAIN_ID)) as (dead,):
        await dead.stop()
        async with open_chain(profile, (dead.url,), SystemClock()) as chain:
            with pytest.raises(ChainUnavailableError):
                await chain.head()
        async with open_chain(profile, (dead.url, devnet.chain.url), SystemClock()) as chain:
            assert (await chain.head()).is_round_initialized


@pytest.mark.parametrize("most", [1, 7, 64, 5000])
async def test_ranges_are_halved_until_the_node_takes_them_case_33(most: int) -> None:
    """A node that refuses more than so many blocks still tells every event, once and in order."""

    def logs(parameters: list[dict[str, str]]) -> object:
        first, last = (int(parameters[0][name], 16) for name in ("fromBlock", "toBlock"))
        if last - first + 1 > most:
            raise RpcRefusal("query returned more than 10000 results", -32005)
        return [
            {
                "address": "0x" + "61" * 20,
                "topics": [],
                "data": "0x",
                "blockNumber": hex(block),
                "transactionHash": "0x" + "00" * 32,
                "logIndex": "0x0",
            }
            for block in range(first, last + 1)
        ]

    async with endpoints(FakeEndpoint(7)) as (node,):
        node.answers["eth_getLogs"] = logs
        async with open_rpc((node.url,), 7, TestClock()) as rpc:
            found = [log async for log in logs_between(rpc, Address(b"a" * 20), (), 5, 1504)]
            assert [log.block_number for log in found] == list(range(5, 1505))
            nothing = logs_between(rpc, Address(b"a" * 20), (), 9, 8)
            assert [log async for log in nothing] == []


async def test_a_node_that_refuses_a_single_block_is_told_case_33() -> None:
    def refuses(_: list[object]) -> object:
        raise RpcRefusal("logs are not served here", -32005)

    async with endpoints(FakeEndpoint(7)) as (node,):
        node.answers["eth_getLogs"] = refuses
        async with open_rpc((node.url,), 7, TestClock()) as rpc:
            with pytest.raises(RefusedError, match="not served"):
                _ = [log async for log in logs_between(rpc, Address(b"a" * 20), (), 0, 9)]
