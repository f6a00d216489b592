"""The whole gateway on a chain of its own: deposit, tickets, and what an operator sees of them."""

import asyncio
import json
from pathlib import Path

import pytest

from network.chain.contracts import open_chain
from network.chain.model import Head
from network.chain.profiles import profile_of
from network.devnet.deployment import account_of
from network.errors import ConfigError
from network.identity import KeySigner
from network.runtime.clock import SystemClock
from network.units import Wei
from tests.devnet import CHAIN_ID, OWNER_KEY, Devnet
from tests.gateway.stub_orchestrator import StubOrchestrator, running
from tests.gateway.stub_till import StubTill
from tests.gateway.test_app import serving, settings_for
from tests.gateway.waiting import until_async
from tests.network.chain.fake_chain import FakeChain

#: The key of `make_cheap_identity`.
GATEWAY_KEY = b"\x22" * 32


async def network_file(devnet: Devnet, folder: Path, chain_id: int = CHAIN_ID) -> Path:
    path = folder / "network.json"
    text = json.dumps(
        {
            "chain_id": chain_id,
            "controller": devnet.chain.controller,
            "ai_service_registry": devnet.chain.addresses["AIServiceRegistry"],
            "rpc": devnet.chain.url,
        }
    )
    await asyncio.to_thread(path.write_text, text)
    return path


async def head_of(path: Path) -> Head:
    profile = await asyncio.to_thread(profile_of, str(path))
    assert profile is not None
    async with open_chain(profile, profile.rpc, SystemClock()) as chain:
        return await chain.head()


def seen_by(head: Head) -> FakeChain:
    """What the stub knows of the chain: enough to quote."""
    chain = FakeChain()
    chain.l1_block, chain.last_initialized = head.l1_block, head.last_initialized_round
    chain.hashes = {head.last_initialized_round: head.creation.block_hash}
    return chain


async def test_a_gateway_pays_on_a_chain_and_says_why_when_it_cannot(
    devnet: Devnet, tmp_path: Path
) -> None:
    payer = account_of(GATEWAY_KEY)
    await devnet.rpc("anvil_setBalance", payer.address, hex(10**19))
    await devnet.contracts.fund_sender(payer, Wei(10**16), Wei(10**16))
    orchestrator = await devnet.orchestrator()
    await devnet.next_round()
    path = await network_file(devnet, tmp_path)
    till = StubTill(seen_by(await head_of(path)), key=KeySigner(bytes(orchestrator.key)))
    async with running(StubOrchestrator(till=till)) as stub:
        chain = {"network": str(path), "poll_seconds": 0.1}
        async with serving(settings_for(tmp_path, stub.uri, chain=chain)) as stage:
            assert (await stage.post()).status == 200
            payments = (await stage.status())["payments"]
            assert payments["problem"] == ""
            assert payments["deposit_wei"] == payments["reserve_wei"] == str(10**16)
            assert payments["outstanding_wei"] == "6001"
            assert payments["credit_wei"] == str(6000 - 64 * 64)
            async with stage.client.get(f"{stage.gateway.admin_url}/metrics") as answer:
                assert "limner_gateway_outstanding_wei 6001.0" in await answer.text()

            # Case 30: the owner pauses the contracts.
            controller = devnet.contracts.contract("Controller").functions
            await devnet.contracts.send(account_of(OWNER_KEY), controller.pause())

            async def is_noticed() -> bool:
                return bool((await stage.status())["payments"]["problem"])

            await until_async(is_noticed)
            refused = await stage.post()
            assert refused.status == 503
            assert (await refused.json())["error"]["code"] == "payments_unavailable"
            assert "paused" in (await stage.status())["payments"]["problem"]


async def test_a_wrong_chain_ends_the_start(devnet: Devnet, tmp_path: Path) -> None:
    path = await network_file(devnet, tmp_path, chain_id=1)
    settings = settings_for(tmp_path, chain={"network": str(path)})
    with pytest.raises(ConfigError, match=r"chain\.rpc"):
        async with serving(settings):
            pass
