"""Transactions are executed once, through stuck pools, crashes, reorganisations and gas spikes."""

import asyncio
import sqlite3
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from network.chain.contracts import LivepeerChain
from network.chain.fees import GasPriceError
from network.chain.flight import TransactionLostError
from network.chain.model import Call, RefusedError, RevertedError
from network.chain.progress import Pace
from network.chain.rpc import Rpc
from network.chain.settings import ChainSettings, GasSettings
from network.chain.transactions import TransactionSender, open_transactions
from network.devnet.deployment import account_of
from network.errors import ConfigError
from network.identity import KeySigner, checksum, keccak
from network.runtime.clock import SystemClock
from network.units import Address, Wei
from tests.devnet import Devnet

NEVER = 10_000.0
TARGET = Address(bytes.fromhex("00000000000000000000000000000000000000aa"))
KEY = keccak(b"a key for transactions")
#: Nothing happens by itself but looking.
PATIENT = Pace(
    poll_seconds=0.02,
    settled_poll_seconds=0.02,
    replace_seconds=NEVER,
    repeat_seconds=NEVER,
    missing_seconds=0.0,
    lost_seconds=0.0,
)
IMPATIENT = Pace(
    poll_seconds=0.02,
    settled_poll_seconds=0.02,
    replace_seconds=0.3,
    repeat_seconds=0.1,
    missing_seconds=0.0,
    lost_seconds=0.3,
)


class Account:
    """A funded account and its data directory, which outlives its sender."""

    def __init__(self, devnet: Devnet, chain: LivepeerChain, folder: Path) -> None:
        self.devnet = devnet
        self.chain = chain
        self.folder = folder
        self.signer = KeySigner(KEY)
        self.gas = GasSettings()

    @property
    def file(self) -> Path:
        return self.folder / "transactions.sqlite"

    @asynccontextmanager
    async def sender(self, pace: Pace = PATIENT) -> AsyncIterator[TransactionSender]:
        async with open_transactions(
            self.signer,
            self.chain,
            self.folder,
            SystemClock(),
            ChainSettings(gas=self.gas),
            pace=pace,
            lock_folder=self.folder,
        ) as opened:
            yield opened

    async def mined(self) -> int:
        tag = (checksum(self.signer.address), "latest")
        return int(await self.devnet.rpc("eth_getTransactionCount", *tag), 16)

    async def pooled(self) -> list[dict[str, Any]]:
        """What waits in the node's pool, by nonce."""
        content = await self.devnet.rpc("txpool_content")
        mine = {
            account.lower(): by_nonce
            for part in ("pending", "queued")
            for account, by_nonce in content[part].items()
            if by_nonce
        }.get("0x" + self.signer.address.hex(), {})
        return [mine[nonce] for nonce in sorted(mine, key=int)]

    async def received(self) -> int:
        return int(await self.chain.balance(TARGET))

    def rows(self, query: str) -> list[Any]:
        with closing(sqlite3.connect(self.file)) as connection:
            return connection.execute(query).fetchall()


@pytest.fixture
async def account(devnet: Devnet, chain: LivepeerChain, tmp_path: Path) -> AsyncIterator[Account]:
    made = Account(devnet, chain, tmp_path)
    await devnet.rpc("anvil_setBalance", checksum(made.signer.address), hex(10**20))
    before = (await chain.rpc.latest_block()).base_fee
    yield made
    # Going back to a snapshot does not take a spike back.
    await devnet.set_base_fee(before)


def pay(amount: int) -> Call:
    return Call(TARGET, value=Wei(amount))


def from_another_wallet() -> str:
    """A transaction of the account with nonce 0 that pays 1 wei, made by a program that is not ours."""
    signed = account_of(KEY).sign_transaction(
        {
            "chainId": 412346,
            "nonce": 0,
            "to": TARGET,
            "value": 1,
            "gas": 21_000,
            "maxFeePerGas": 10**11,
            "maxPriorityFeePerGas": 10**10,
        }
    )
    return "0x" + bytes(signed.raw_transaction).hex()


async def until(condition: Callable[[], Awaitable[object]]) -> None:
    """Polls; the test's own time limit ends it."""
    while not await condition():  # noqa: ASYNC110  a chain in another process tells no event
        await asyncio.sleep(0.02)


async def test_a_transaction_is_sent_and_its_receipt_kept(account: Account) -> None:
    async with account.sender() as sender:
        receipt = await sender.send(pay(5), "pay:1")
        again = await sender.send(pay(5), "pay:1")
        other = await sender.send(pay(7), "pay:2")

    assert receipt.is_successful
    assert receipt.gas_used == 21_000
    assert receipt.cost == 21_000 * receipt.gas_price > 0
    assert again == receipt != other
    assert await account.received() == 12
    async with account.sender() as sender:
        assert await sender.send(pay(5), "pay:1") == receipt
    assert await account.mined() == 2


async def test_a_final_transaction_is_answered_from_the_record_alone(account: Account) -> None:
    async with account.sender(Pace(poll_seconds=0.02, final_blocks=1)) as sender:
        receipt = await sender.send((await account.chain.calls()).fund_deposit(Wei(5)), "fund:1")
        assert receipt.logs
        assert await sender.send(pay(5), "fund:1") == receipt
    assert account.rows("SELECT state FROM states ORDER BY id")[-1] == ("final",)


async def test_senders_of_one_purpose_share_one_transaction(account: Account) -> None:
    async with account.sender() as sender:
        receipts = await asyncio.gather(*(sender.send(pay(5), "pay") for _ in range(5)))

    assert len({receipt.transaction_hash for receipt in receipts}) == 1
    assert await account.received() == 5


async def test_purposes_sent_at_once_get_nonces_in_a_row(account: Account) -> None:
    async with account.sender() as sender:
        await asyncio.gather(*(sender.send(pay(1), f"pay:{n}") for n in range(10)))

    assert await account.received() == 10
    nonces = account.rows("SELECT nonce FROM transactions ORDER BY nonce")
    assert nonces == [(n,) for n in range(10)]


async def test_a_call_that_would_fail_costs_nothing(account: Account) -> None:
    calls = await account.chain.calls()
    async with account.sender() as sender:
        with pytest.raises(RevertedError) as refused:
            await sender.send(calls.cancel_unlock(), "cancel")

    assert refused.value.reason == "no unlock request in progress"
    assert await account.mined() == 0
    assert account.rows("SELECT * FROM transactions") == []


async def test_a_call_that_fails_in_its_block_says_why_and_may_be_sent_again(
    account: Account,
) -> None:
    calls = await account.chain.calls()
    hopeless = replace(calls.cancel_unlock(), gas_limit=200_000)
    async with account.sender() as sender:
        with pytest.raises(RevertedError) as refused:
            await sender.send(hopeless, "cancel")
        assert refused.value.reason == "no unlock request in progress"
        with pytest.raises(RevertedError):
            await sender.send(hopeless, "cancel")

    assert await account.mined() == 2


async def test_an_empty_account_is_told_and_its_nonce_is_free_again(account: Account) -> None:
    await account.devnet.rpc("anvil_setBalance", checksum(account.signer.address), "0x0")
    async with account.sender() as sender:
        with pytest.raises(RefusedError, match=r"(?i)insufficient funds"):
            await sender.send(Call(TARGET, value=Wei(1), gas_limit=21_000), "pay")
        await account.devnet.rpc("anvil_setBalance", checksum(account.signer.address), hex(10**20))
        await sender.send(pay(1), "pay")

    assert await account.received() == 1
    assert account.rows("SELECT nonce FROM transactions") == [(0,), (0,)]


async def test_every_attempt_is_on_disk_before_a_node_sees_it_case_17(
    pool: Devnet, account: Account, monkeypatch: pytest.MonkeyPatch
) -> None:
    broadcast = Rpc.broadcast
    seen: list[bytes] = []

    async def after_a_look(rpc: Rpc, raw: bytes) -> None:
        assert (raw,) in await asyncio.to_thread(account.rows, "SELECT raw FROM attempts")
        seen.append(raw)
        await broadcast(rpc, raw)

    monkeypatch.setattr(Rpc, "broadcast", after_a_look)
    async with account.sender(IMPATIENT) as sender:
        waiting = asyncio.ensure_future(sender.send(pay(5), "pay"))

        async def has_two() -> bool:
            return len(set(seen)) > 1

        await until(has_two)
        assert list(sender.under_way) == ["pay"]
        await pool.mine()
        assert (await waiting).is_successful
        assert not sender.under_way


async def test_a_stuck_transaction_is_replaced_and_only_one_counts_case_17(
    pool: Devnet, account: Account
) -> None:
    async with account.sender(IMPATIENT) as sender:
        waiting = asyncio.ensure_future(sender.send(pay(5), "pay"))
        await until(account.pooled)
        (first,) = await account.pooled()

        async def is_replaced() -> bool:
            (entry,) = await account.pooled()
            return bool(entry["hash"] != first["hash"])

        await until(is_replaced)
        (second,) = await account.pooled()
        await pool.mine()
        receipt = await waiting

    assert second["nonce"] == first["nonce"]
    offered = [int(entry["maxFeePerGas"], 16) for entry in (first, second)]
    assert offered[1] * 8 >= offered[0] * 9
    assert receipt.is_successful
    assert await account.received() == 5
    stored = {name for (name,) in account.rows("SELECT hash FROM attempts")}
    assert {first["hash"][2:], second["hash"][2:], receipt.transaction_hash.hex()} <= stored


async def test_the_receipt_of_an_older_attempt_is_taken_case_17(
    pool: Devnet, account: Account
) -> None:
    """The replacement is made, but the first version is what a block producer took."""
    async with account.sender(IMPATIENT) as sender:
        waiting = asyncio.ensure_future(sender.send(pay(5), "pay"))
        await until(account.pooled)
        (first,) = await account.pooled()
        raw = account.rows("SELECT raw FROM attempts")[0][0]

        async def has_two() -> bool:
            return len(account.rows("SELECT hash FROM attempts")) > 1

        await until(has_two)
    waiting.cancel()
    await pool.rpc("anvil_dropAllTransactions")
    await pool.rpc("eth_sendRawTransaction", "0x" + raw.hex())
    await pool.mine()
    async with account.sender() as sender:
        receipt = await sender.send(pay(5), "pay")

    assert "0x" + receipt.transaction_hash.hex() == first["hash"]
    assert await account.received() == 5


async def test_what_a_pool_dropped_is_broadcast_again_case_18(
    pool: Devnet, account: Account
) -> None:
    async with account.sender(Pace(poll_seconds=0.02, repeat_seconds=0.1)) as sender:
        waiting = asyncio.ensure_future(sender.send(pay(5), "pay"))
        await until(account.pooled)
        await pool.rpc("anvil_dropAllTransactions")
        await until(account.pooled)
        await pool.mine()
        await waiting

    assert await account.received() == 5
    assert len(account.rows("SELECT hash FROM attempts")) == 1


async def test_what_was_under_way_at_a_crash_is_joined_not_sent_twice_case_18(
    pool: Devnet, account: Account
) -> None:
    async with account.sender() as sender:
        lost = asyncio.ensure_future(sender.send(pay(5), "pay"))
        await until(account.pooled)
    lost.cancel()

    async with account.sender() as sender:
        assert sender.under_way == ("pay",)
        waiting = asyncio.ensure_future(sender.send(pay(5), "pay"))
        await asyncio.sleep(0.1)
        assert len(await account.pooled()) == 1
        await pool.mine()
        await waiting

    assert await account.received() == 5
    assert account.rows("SELECT count(*) FROM transactions") == [(1,)]


async def test_a_crash_between_disk_and_broadcast_loses_nothing_case_17(
    pool: Devnet, account: Account
) -> None:
    async with account.sender() as sender:
        lost = asyncio.ensure_future(sender.send(pay(5), "pay"))
        await until(account.pooled)
    lost.cancel()
    # As a SIGKILL right after the first commit leaves it: written down, in no pool.
    await pool.rpc("anvil_dropAllTransactions")
    with closing(sqlite3.connect(account.file)) as connection:
        connection.execute("DELETE FROM states WHERE state <> 'prepared'")
        connection.commit()

    async with account.sender():
        await until(account.pooled)
        await pool.mine()

        async def is_mined() -> bool:
            return ("mined",) in account.rows("SELECT state FROM states")

        await until(is_mined)
    assert await account.received() == 5


async def test_a_reorganisation_takes_the_way_back_case_14(account: Account) -> None:
    devnet = account.devnet
    async with account.sender() as sender:
        before = await sender.send(pay(5), "pay")
        await devnet.reorganize(1)
        assert await account.received() == 0

        async def is_back() -> bool:
            return await account.received() == 5

        await until(is_back)

        async def is_settled() -> bool:
            return not sender.under_way

        await until(is_settled)
        after = await sender.send(pay(5), "pay")

    assert after.block_hash != before.block_hash
    states = [state for (state,) in account.rows("SELECT state FROM states ORDER BY id")]
    assert states == ["prepared", "sent", "mined", "sent", "mined"]


async def test_confirmations_are_waited_for(pool: Devnet, account: Account) -> None:
    async with account.sender(Pace(poll_seconds=0.02, confirmations=3)) as sender:
        waiting = asyncio.ensure_future(sender.send(pay(5), "pay"))
        await until(account.pooled)
        await pool.mine(2)

        async def is_mined() -> bool:
            return ("mined",) in account.rows("SELECT state FROM states")

        await until(is_mined)
        await asyncio.sleep(0.1)
        assert not waiting.done()
        await pool.mine()
        await waiting


async def test_gas_above_the_cap_is_refused_unless_the_caller_allows_it_case_16(
    account: Account,
) -> None:
    account.gas = GasSettings(max_fee_gwei=10)
    gwei = 10**9
    await account.devnet.set_base_fee(500 * gwei)
    await account.devnet.mine()
    await account.devnet.set_base_fee(500 * gwei)
    async with account.sender() as sender:
        with pytest.raises(GasPriceError, match="max_fee_gwei"):
            await sender.send(pay(5), "pay")
        assert await account.mined() == 0
        receipt = await sender.send(pay(5), "pay", max_fee=Wei(1000 * gwei))
    assert receipt.gas_price == 500 * gwei


async def test_a_gas_spike_after_sending_is_answered_by_a_replacement_case_16(
    pool: Devnet, account: Account
) -> None:
    gwei = 10**9
    async with account.sender(IMPATIENT) as sender:
        waiting = asyncio.ensure_future(sender.send(pay(5), "pay", max_fee=Wei(1000 * gwei)))
        await until(account.pooled)
        await pool.set_base_fee(50 * gwei)
        await pool.mine()
        await pool.set_base_fee(50 * gwei)
        assert await account.mined() == 0

        async def offers_enough() -> bool:
            return any(int(e["maxFeePerGas"], 16) >= 50 * gwei for e in await account.pooled())

        await until(offers_enough)
        await pool.mine()
        await waiting
    assert await account.received() == 5


async def test_a_nonce_that_another_program_used_is_told_case_17(
    pool: Devnet, account: Account
) -> None:
    """Somebody else's wallet holds the key too; its transaction is mined in place of ours."""
    async with account.sender(IMPATIENT) as sender:
        waiting = asyncio.ensure_future(sender.send(pay(5), "pay", max_fee=Wei(10**6)))
        await until(account.pooled)
        await pool.rpc("anvil_dropAllTransactions")
        foreign = from_another_wallet()
        await pool.rpc("eth_sendRawTransaction", foreign)
        await pool.mine()
        with pytest.raises(TransactionLostError, match="nonce 0"):
            await waiting
        again = asyncio.ensure_future(sender.send(pay(5), "pay"))
        await until(account.pooled)
        await pool.mine()
        assert (await again).is_successful
    assert await account.received() == 6


async def test_a_gap_before_our_nonce_is_filled_case_17(pool: Devnet, account: Account) -> None:
    """Another program's transaction had the nonce before ours, and its pool dropped it."""
    foreign = from_another_wallet()
    await pool.rpc("eth_sendRawTransaction", foreign)
    async with account.sender(IMPATIENT) as sender:
        waiting = asyncio.ensure_future(sender.send(pay(5), "pay"))

        async def has_two() -> bool:
            return len(await account.pooled()) == 2

        await until(has_two)
        await pool.rpc("anvil_dropAllTransactions")
        await until(has_two)
        await pool.mine()
        await waiting
    assert await account.mined() == 2
    assert await account.received() == 5


async def test_a_second_sender_of_one_key_is_told_who_holds_it_case_17(account: Account) -> None:
    async with account.sender():
        with pytest.raises(ConfigError, match=r"is in use by .*process \d+") as refused:
            async with account.sender():
                pytest.fail("two senders hold one key")
    assert checksum(account.signer.address) in str(refused.value)
    async with account.sender() as sender:
        await sender.send(pay(1), "pay")


async def test_cancelling_the_wait_leaves_the_transaction_under_way(
    pool: Devnet, account: Account
) -> None:
    async with account.sender() as sender:
        hasty = asyncio.ensure_future(sender.send(pay(5), "pay"))
        await asyncio.sleep(0)
        hasty.cancel()
        await until(account.pooled)
        patient = asyncio.ensure_future(sender.send(pay(5), "pay"))
        await pool.mine()
        await patient
    assert await account.received() == 5
    assert account.rows("SELECT count(*) FROM transactions") == [(1,)]
