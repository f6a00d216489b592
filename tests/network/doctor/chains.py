"""A test's development chain as programs are told of it."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from network.chain.contracts import LivepeerChain, open_chain
from network.chain.profiles import profile_of
from network.runtime.clock import SystemClock
from tests.devnet import CHAIN_ID, Devnet


async def network_file(devnet: Devnet, folder: Path, *, chain_id: int = CHAIN_ID) -> Path:
    """What a devnet writes down of itself."""
    await asyncio.to_thread(folder.mkdir, parents=True, exist_ok=True)
    path = folder / "network.json"
    await asyncio.to_thread(devnet.contracts.save, path, chain_id, devnet.chain.url, "anvil")
    return path


@asynccontextmanager
async def chain_of(devnet: Devnet, folder: Path) -> AsyncIterator[LivepeerChain]:
    """The contracts as our programs see them."""
    profile = await asyncio.to_thread(profile_of, str(await network_file(devnet, folder)))
    assert profile is not None
    async with open_chain(profile, profile.rpc, SystemClock()) as chain:
        yield chain
