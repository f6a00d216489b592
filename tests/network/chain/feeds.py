"""A price feed on the development chain, as its operator sees it."""

from dataclasses import dataclass
from typing import Any

from web3.contract.async_contract import AsyncContract

from network.devnet.artifacts import artifact
from network.identity import parse_address
from network.units import Address
from tests.devnet import Devnet


@dataclass(frozen=True, slots=True)
class DeployedFeed:
    """A contract that answers as a Chainlink aggregator does."""

    devnet: Devnet
    contract: AsyncContract

    @property
    def address(self) -> Address:
        return parse_address(self.contract.address)

    async def set(self, answer: int, updated_at: float) -> None:
        call = self.contract.functions.set(answer, int(updated_at))
        await self.devnet.contracts.send(self.devnet.contracts.owner, call)


async def deploy_feed(
    devnet: Devnet, decimals: int = 8, description: str = "ETH / USD"
) -> DeployedFeed:
    compiled = artifact("PriceFeed")
    web3: Any = devnet.web3
    factory = web3.eth.contract(abi=compiled.abi, bytecode=compiled.bytecode)
    owner = devnet.contracts.owner
    receipt = await devnet.contracts.send(owner, factory.constructor(decimals, description))
    made = web3.eth.contract(address=receipt["contractAddress"], abi=compiled.abi)
    return DeployedFeed(devnet, made)
