"""A chain with one orchestrator that is active and one sender that has funds."""

import pytest

from tests.devnet import Devnet
from tests.network.devnet.redeeming import Bench


@pytest.fixture
async def bench(devnet: Devnet) -> Bench:
    orchestrator = await devnet.orchestrator()
    sender = await devnet.sender()
    await devnet.next_round()
    return Bench(devnet, orchestrator, sender)
