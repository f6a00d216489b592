"""A chain of our own under the tests: anvil with our contracts, as new for every test."""

import asyncio
import shutil
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import pytest
from eth_account.signers.local import LocalAccount
from web3 import AsyncHTTPProvider, AsyncWeb3
from web3.types import RPCEndpoint

from network.devnet.anvil import AnvilOptions, find_anvil, free_port, running_anvil
from network.devnet.artifacts import load
from network.devnet.deployment import ETHER, Deployment, Rules, account_of
from network.identity import keccak
from network.units import Wei

CHAIN_ID: Final = 412346
#: The first account of the mnemonic that development tools share.
OWNER_KEY: Final = bytes.fromhex(
    "ac0974bec39a17e36ba4a6b4d238ff944bacb478cbed5efcae784d7bf4f2ff80"
)
RULES: Final = Rules(round_length=20)


@dataclass(frozen=True, slots=True)
class DeployedChain:
    """An anvil with the contracts on it, shared by the tests of a session."""

    url: str
    controller: str
    addresses: dict[str, str]
    pid: int


@dataclass(slots=True)
class Devnet:
    """One test's view of the chain; what it does is undone at its end."""

    chain: DeployedChain
    contracts: Deployment
    accounts: int = field(default=0)

    @property
    def web3(self) -> AsyncWeb3[Any]:
        return self.contracts.web3

    async def rpc(self, method: str, *parameters: Any) -> Any:
        answer = await self.web3.provider.make_request(method, list(parameters))
        if "error" in answer:
            raise AssertionError(answer["error"])
        return answer["result"]

    async def account(self, ether: int = 100) -> LocalAccount:
        """A new account with some ether."""
        self.accounts += 1
        made = account_of(keccak(b"account %d of a test" % self.accounts))
        await self.rpc("anvil_setBalance", made.address, hex(ether * ETHER))
        return made

    async def mine(self, blocks: int = 1) -> None:
        await self.rpc("anvil_mine", hex(blocks))

    async def next_round(self, rounds: int = 1, *, initialize: bool = True) -> int:
        """Mine up to the start of a later round; answers its number."""
        manager = self.contracts.contract("RoundsManager").functions
        for _ in range(rounds):
            start = await manager.currentRoundStartBlock().call()
            length = await manager.roundLength().call()
            await self.mine(start + length - await self.web3.eth.block_number)
            if initialize:
                await self.contracts.initialize_round()
        return await self.contracts.current_round()

    async def orchestrator(
        self, stake: int = 100, uri: str = "https://127.0.0.1:8936"
    ) -> LocalAccount:
        """A registered one; it is active from the next round on."""
        made = await self.account()
        await self.contracts.register_orchestrator(made, Wei(stake * ETHER), uri)
        return made

    async def sender(self, deposit: int = ETHER, reserve: int = ETHER) -> LocalAccount:
        """A funded one."""
        made = await self.account()
        await self.contracts.fund_sender(made, Wei(deposit), Wei(reserve))
        return made

    async def set_base_fee(self, wei: int) -> None:
        """Of the next block."""
        await self.rpc("anvil_setNextBlockBaseFeePerGas", hex(wei))

    async def reorganize(self, depth: int) -> None:
        """Replace the last blocks by empty ones: receipts in them are gone."""
        await self.rpc("anvil_reorg", depth, [])


@pytest.fixture(scope="session")
def anvil_program() -> Path:
    """Where anvil is. A test that asks is skipped only where nothing could install it."""
    program = find_anvil()
    if program is None and shutil.which("npm") is None:
        pytest.skip("anvil is missing, and so is npm, from which it comes")
    if program is None:
        pytest.fail("anvil is missing: run scripts/solidity/install, or set ANVIL")
    return program


@pytest.fixture(scope="session")
def deployed_chain(
    anvil_program: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[DeployedChain]:
    log = tmp_path_factory.mktemp("anvil") / "log"
    options = AnvilOptions(free_port(), CHAIN_ID)
    with running_anvil(anvil_program, options, log) as anvil:
        load()
        yield asyncio.run(_deployed(anvil.url, anvil.pid))


@pytest.fixture
async def devnet(deployed_chain: DeployedChain) -> AsyncIterator[Devnet]:
    web3 = AsyncWeb3(AsyncHTTPProvider(deployed_chain.url))
    owner = account_of(OWNER_KEY)
    contracts = Deployment(web3, owner, deployed_chain.controller, deployed_chain.addresses)
    devnet = Devnet(deployed_chain, contracts)
    snapshot = await devnet.rpc("evm_snapshot")
    try:
        yield devnet
    finally:
        await devnet.rpc("evm_revert", snapshot)
        await web3.provider.disconnect()


async def _deployed(url: str, pid: int) -> DeployedChain:
    web3 = AsyncWeb3(AsyncHTTPProvider(url))
    try:
        owner = account_of(OWNER_KEY)
        rich = [owner.address, hex(10_000 * ETHER)]
        answer = await web3.provider.make_request(RPCEndpoint("anvil_setBalance"), rich)
        assert "error" not in answer, answer
        found = await Deployment.deploy(web3, owner, RULES)
    finally:
        await web3.provider.disconnect()
    return DeployedChain(url, found.controller, found.addresses, pid)
