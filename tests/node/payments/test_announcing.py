"""The registered service URI is held against the node's own, and set right where that is wanted."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from network.chain.contracts import LivepeerChain
from network.chain.progress import Pace
from network.chain.settings import ChainSettings
from network.chain.transactions import open_transactions
from network.chain.watch import ChainWatch
from network.identity import KeySigner
from network.runtime.clock import SystemClock
from node.payments.announcing import Registered, ServiceUriKeeper, difference
from tests.devnet import Devnet
from tests.network.doctor.chains import chain_of

OLD, NEW = "https://old.example:8936", "https://new.example:8936"


@pytest.mark.parametrize(
    ("found", "words"),
    [
        (Registered(NEW, ""), ""),
        (Registered(NEW + "/", OLD), ""),
        (Registered("", NEW), "has no address of this node"),
        (Registered(OLD, NEW), f"has {OLD}, and the node is at {NEW}"),
        (Registered("https://x\x1b[2J", ""), "has https://x[2J,"),
    ],
)
def test_what_counts_is_where_gateways_look_for_images(found: Registered, words: str) -> None:
    wrong = difference(NEW, found)
    assert bool(wrong) is bool(words)
    assert words in wrong


@dataclass
class Desk:
    """An orchestrator's keeper, and what it did."""

    devnet: Devnet
    chain: LivepeerChain
    watch: ChainWatch
    keeper: ServiceUriKeeper
    signer: KeySigner

    async def step(self) -> str:
        await self.watch.refresh()
        return await self.keeper.step()

    async def sent(self) -> int:
        web3 = self.devnet.web3
        address = web3.to_checksum_address("0x" + self.signer.address.hex())
        return await web3.eth.get_transaction_count(address)

    async def registered(self) -> str:
        return await self.chain.service_uri(self.signer.address)


@asynccontextmanager
async def desk(
    devnet: Devnet, folder: Path, *, sets: bool, wanted: str = NEW, key: bytes | None = None
) -> AsyncIterator[Desk]:
    signer = KeySigner(key or (await devnet.orchestrator(uri=OLD)).key)
    async with chain_of(devnet, folder) as chain:
        opened = open_transactions(
            signer,
            chain,
            folder,
            SystemClock(),
            ChainSettings(),
            pace=Pace(poll_seconds=0.02, settled_poll_seconds=0.02),
            lock_folder=folder,
        )
        async with opened as transactions:
            watch = ChainWatch(chain, SystemClock())
            keeper = ServiceUriKeeper(chain, watch, transactions, wanted, SystemClock(), sets=sets)
            yield Desk(devnet, chain, watch, keeper, signer)


async def test_a_difference_is_logged_once_with_the_command(
    devnet: Devnet, tmp_path: Path
) -> None:
    async with desk(devnet, tmp_path, sets=False) as found:
        await devnet.next_round()
        before = await found.sent()
        with capture_logs() as lines:
            assert OLD in await found.step()
            await found.step()
        assert await found.sent() == before
    (line,) = lines
    assert line["advice"] == f"limner-node service-uri {NEW}"
    assert OLD in line["problem"]
    assert found.keeper.as_json() == {
        "wanted": NEW,
        "registered": OLD,
        "problem": line["problem"],
    }


async def test_an_active_orchestrator_has_it_set_once(devnet: Devnet, tmp_path: Path) -> None:
    async with desk(devnet, tmp_path, sets=True) as found:
        await devnet.next_round()
        before = await found.sent()
        assert await found.step() == ""
        assert await found.registered() == NEW
        assert await found.step() == ""
        assert await found.sent() == before + 1


async def test_an_inactive_one_pays_no_gas_for_it(devnet: Devnet, tmp_path: Path) -> None:
    async with desk(devnet, tmp_path, sets=True) as found:
        before = await found.sent()
        assert "not active" in await found.step()
        assert await found.sent() == before
        await devnet.next_round()
        assert await found.step() == ""


async def test_two_nodes_of_one_account_do_not_outbid_each_other(
    devnet: Devnet, tmp_path: Path
) -> None:
    account = await devnet.orchestrator(uri=OLD)
    await devnet.next_round()
    async with desk(devnet, tmp_path, sets=True, key=account.key) as found:
        assert await found.step() == ""
        await devnet.contracts.set_service_uri(account, OLD)
        before = await found.sent()
        for _ in range(3):
            assert "changed again by somebody" in await found.step()
        assert await found.sent() == before
        await devnet.next_round()
        assert await found.step() == ""
        assert await found.sent() == before + 1


async def test_nothing_is_sent_where_it_is_right(devnet: Devnet, tmp_path: Path) -> None:
    async with desk(devnet, tmp_path, sets=True, wanted=OLD) as found:
        await devnet.next_round()
        before = await found.sent()
        with capture_logs() as lines:
            assert await found.step() == ""
        assert await found.sent() == before
        assert lines == []
