"""The contracts of one deployment, found through its Controller, as web3 objects.

web3 is imported when a chain is first used: a program without one does not pay for it.
"""

import asyncio
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from typing_extensions import override

from network.chain import abi
from network.chain.model import ChainError
from network.chain.profiles import Profile
from network.chain.rpc import Rpc
from network.identity import checksum, keccak, parse_address
from network.units import Address

if TYPE_CHECKING:
    from web3 import AsyncWeb3
    from web3.contract import AsyncContract
    from web3.contract.async_contract import AsyncContractFunction

NO_ADDRESS: Final = Address(bytes(20))


@dataclass(frozen=True, slots=True)
class Deployment:
    """Where each contract is now, and how it is spoken to."""

    controller: "AsyncContract"
    broker: "AsyncContract"
    rounds: "AsyncContract"
    bonding: "AsyncContract"
    services: "AsyncContract"
    ai_services: "AsyncContract"
    token: "AsyncContract"


class Web3Gate:
    """web3 over our endpoints. Made by `open_web3`."""

    def __init__(self, web3: "AsyncWeb3[Any]", abis: dict[str, list[dict[str, Any]]]) -> None:
        self._web3 = web3
        self._abis = abis

    async def resolve(self, profile: Profile) -> Deployment:
        """Ask the Controller for every contract. Raises ChainError."""
        controller = self._contract("controller", profile.controller)
        names = ("TicketBroker", "RoundsManager", "BondingManager", "ServiceRegistry")
        found = await asyncio.gather(
            *(self._locate(controller, name) for name in (*names, "LivepeerToken"))
        )
        return Deployment(
            controller=controller,
            broker=self._contract("ticket_broker", found[0]),
            rounds=self._contract("rounds_manager", found[1]),
            bonding=self._contract("bonding_manager", found[2]),
            services=self._contract("service_registry", found[3]),
            ai_services=self._contract("service_registry", profile.ai_service_registry),
            token=self._contract("token", found[4]),
        )

    async def _locate(self, controller: "AsyncContract", name: str) -> Address:
        answer = await read(controller.functions.getContract(contract_id(name)))
        address = parse_address(answer)
        if address == NO_ADDRESS:
            raise ChainError(f"the Controller at {controller.address} knows no {name}")
        return address

    def _contract(self, name: str, address: Address) -> "AsyncContract":
        made: AsyncContract = self._web3.eth.contract(
            address=self._web3.to_checksum_address(checksum(address)), abi=self._abis[name]
        )
        return made


def contract_id(name: str) -> bytes:
    """What the Controller calls a contract."""
    return keccak(name.encode())


async def open_web3(rpc: Rpc) -> Web3Gate:
    """Imports web3 on a thread: it takes a second."""
    return Web3Gate(await asyncio.to_thread(_web3_over, rpc), await asyncio.to_thread(_abis))


async def read(function: "AsyncContractFunction", block: int | None = None) -> Any:
    """What a view answers at `block`, None being the newest.

    Raises ChainError also where no contract, or another one, stands at the address.
    """
    from web3.exceptions import Web3Exception  # noqa: PLC0415

    try:
        return await function.call(block_identifier="latest" if block is None else block)
    except Web3Exception as error:
        name = getattr(function, "fn_name", "a call")
        raise ChainError(f"{name} at {function.address} answers no such thing: {error}") from error


def _abis() -> dict[str, list[dict[str, Any]]]:
    return {name: abi.load(name) for name in abi.NAMES}


def _web3_over(rpc: Rpc) -> "AsyncWeb3[Any]":
    from web3 import AsyncWeb3  # noqa: PLC0415
    from web3.providers.async_base import AsyncBaseProvider  # noqa: PLC0415
    from web3.types import RPCEndpoint, RPCResponse  # noqa: PLC0415

    class Provider(AsyncBaseProvider):
        # A contract must not be able to send us to a URL of its choice.
        global_ccip_read_enabled = False

        @override
        async def make_request(self, method: RPCEndpoint, params: Any) -> RPCResponse:
            return {"jsonrpc": "2.0", "id": 0, "result": await rpc.request(method, params)}

    # It looks for its hash function, which reads files, when it is first asked for one.
    AsyncWeb3.keccak(b"")
    return AsyncWeb3(Provider(), middleware=[])
