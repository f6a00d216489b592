"""Our client of the development chain's contracts, and accounts on it."""

from collections.abc import AsyncIterator

import pytest

from network.chain.contracts import LivepeerChain, open_chain
from network.chain.profiles import Profile
from network.identity import parse_address
from network.runtime.clock import SystemClock
from tests.devnet import CHAIN_ID, Devnet

AUTOMATIC = (True,)
MANUAL = (False,)


@pytest.fixture
def profile(devnet: Devnet) -> Profile:
    contracts = devnet.contracts
    return Profile(
        name="devnet",
        chain_id=CHAIN_ID,
        controller=parse_address(contracts.controller),
        ai_service_registry=parse_address(contracts.addresses["AIServiceRegistry"]),
    )


@pytest.fixture
async def chain(devnet: Devnet, profile: Profile) -> AsyncIterator[LivepeerChain]:
    async with open_chain(profile, (devnet.chain.url,), SystemClock()) as opened:
        yield opened


@pytest.fixture
async def pool(devnet: Devnet) -> AsyncIterator[Devnet]:
    """The chain with its blocks made only by `devnet.mine()`: transactions wait in the pool."""
    await devnet.rpc("evm_setAutomine", *MANUAL)
    try:
        yield devnet
    finally:
        await devnet.rpc("anvil_dropAllTransactions")
        await devnet.rpc("evm_setAutomine", *AUTOMATIC)
