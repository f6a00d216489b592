"""The contracts on a chain: putting them there, and what a development network does with them.

Everything here is sent by `web3`, awaited and checked, one transaction after another: a development
chain has one operator, and needs none of what a node does to survive the real one.
"""

import asyncio
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Self

from eth_account import Account
from eth_account.signers.local import LocalAccount
from eth_hash.auto import keccak as _web3s_keccak
from web3 import AsyncWeb3
from web3.contract.async_contract import (
    AsyncContract,
    AsyncContractConstructor,
    AsyncContractFunction,
)
from web3.types import TxParams, TxReceipt

from network.devnet.artifacts import artifact, load
from network.errors import LimnerError
from network.identity import checksum, keccak
from network.units import Address, Wei

# It looks for its backend, which reads files, at its first call: not on somebody's event loop.
_web3s_keccak(b"")

#: Rewards and fees are parts of a million.
PERCENT: Final = 10_000
ETHER: Final = 10**18
#: Name in the Controller, contract.
_REGISTERED: Final = {
    "LivepeerToken": "Token",
    "Minter": "Minter",
    "RoundsManager": "RoundsManager",
    "BondingManager": "BondingManager",
    "TicketBroker": "TicketBroker",
    "ServiceRegistry": "ServiceRegistry",
    "AIServiceRegistry": "ServiceRegistry",
}


class DevnetError(LimnerError):
    """The development chain refused a step; the message says which and why."""


@dataclass(frozen=True, slots=True)
class Rules:
    """What governance decides on the real network. Lengths in blocks and rounds."""

    round_length: int = 50
    #: Parts of a million: the end of a round in which transcoders' parameters are fixed.
    round_lock: int = 100_000
    unlock_period: int = 2
    ticket_validity_period: int = 2
    pool_size: int = 100


class Deployment:
    """The contracts of one chain, by name in the Controller, and the account that owns them."""

    def __init__(
        self,
        web3: AsyncWeb3[Any],
        owner: LocalAccount,
        controller: str,
        contracts: Mapping[str, str],
    ) -> None:
        self.web3: Final = web3
        self.owner: Final = owner
        self.controller: Final = controller
        #: Checksummed addresses.
        self.addresses: Final = dict(contracts)

    @classmethod
    async def deploy(cls, web3: AsyncWeb3[Any], owner: LocalAccount, rules: Rules) -> Self:
        """Create every contract and initialise the first round. Raises DevnetError."""
        await asyncio.to_thread(load)
        controller = await _create(web3, owner, "Controller")
        arguments: dict[str, tuple[Any, ...]] = {
            "Token": (),
            "RoundsManager": (controller, rules.round_length, rules.round_lock),
            "BondingManager": (controller, rules.pool_size),
            "TicketBroker": (controller, rules.unlock_period, rules.ticket_validity_period),
        }
        contracts: dict[str, str] = {}
        for name, kind in _REGISTERED.items():
            contracts[name] = await _create(web3, owner, kind, *arguments.get(kind, (controller,)))
        found = cls(web3, owner, controller, contracts)
        registry = found.contract("Controller")
        for name, address in contracts.items():
            entry = registry.functions.setContractInfo(keccak(name.encode()), address, bytes(20))
            await found.send(owner, entry)
        await found.initialize_round()
        return found

    def contract(self, name: str) -> AsyncContract:
        """A contract by its name in the Controller, or the Controller itself."""
        address = self.controller if name == "Controller" else self.addresses[name]
        abi = artifact(_REGISTERED.get(name, "Controller")).abi
        return self.web3.eth.contract(address=self.web3.to_checksum_address(address), abi=abi)

    async def send(
        self,
        account: LocalAccount,
        call: AsyncContractFunction | AsyncContractConstructor | TxParams,
        value: int = 0,
        gas: int | None = None,
    ) -> TxReceipt:
        """Sign, send and await one transaction. Raises DevnetError with the contract's reason.

        `gas` None has the chain estimate it.
        """
        return await _send(self.web3, account, call, value, gas)

    async def give_ether(self, to: Address, amount: Wei) -> None:
        """From the owner, who has as much as the chain was born with."""
        await self.send(self.owner, {"to": self.web3.to_checksum_address(checksum(to))}, amount)

    async def register_orchestrator(
        self, account: LocalAccount, stake: Wei, service_uri: str
    ) -> None:
        """Bond, set the cuts and the address where it serves; active from the next round on."""
        token, bonding = self.contract("LivepeerToken"), self.contract("BondingManager")
        await self.send(account, token.functions.mint(account.address, stake))
        await self.send(account, token.functions.approve(bonding.address, stake))
        await self.initialize_round()
        await self.send(account, bonding.functions.bond(stake, account.address))
        await self.send(account, bonding.functions.transcoder(50 * PERCENT, 50 * PERCENT))
        await self.set_service_uri(account, service_uri)

    async def set_service_uri(self, account: LocalAccount, service_uri: str) -> None:
        """Write into both registries where the orchestrator serves, unless it is there already."""
        for name in ("ServiceRegistry", "AIServiceRegistry"):
            registry = self.contract(name).functions
            if await registry.getServiceURI(account.address).call() != service_uri:
                await self.send(account, registry.setServiceURI(service_uri))

    async def fund_sender(self, account: LocalAccount, deposit: Wei, reserve: Wei) -> None:
        """Pay into the sender's deposit and reserve, out of its own ether."""
        broker = self.contract("TicketBroker")
        call = broker.functions.fundDepositAndReserve(deposit, reserve)
        await self.send(account, call, deposit + reserve)

    async def initialize_round(self) -> bool:
        """Initialise the current round if nobody did; whether that was needed."""
        rounds = self.contract("RoundsManager")
        if await rounds.functions.currentRoundInitialized().call():
            return False
        try:
            await self.send(self.owner, rounds.functions.initializeRound())
        except DevnetError:
            # Somebody else may have been quicker; anybody may.
            if not await rounds.functions.currentRoundInitialized().call():
                raise
            return False
        return True

    async def set_round_length(self, blocks: int) -> None:
        """From the current round's start on; nothing where rounds are as long already."""
        rounds = self.contract("RoundsManager").functions
        if await rounds.roundLength().call() != blocks:
            await self.send(self.owner, rounds.setRoundLength(blocks))

    async def current_round(self) -> int:
        number: int = await self.contract("RoundsManager").functions.currentRound().call()
        return number

    def save(self, path: Path, chain_id: int, rpc: str, engine: str) -> None:
        """Write what nodes and gateways have to know of this network, as `network.json`."""
        content = {
            "chain_id": chain_id,
            "controller": self.controller,
            "ai_service_registry": self.addresses["AIServiceRegistry"],
            "rpc": rpc,
            "engine": engine,
        }
        draft = path.with_suffix(".draft")
        draft.write_text(json.dumps(content, indent=1) + "\n")
        draft.replace(path)


async def find_deployment(
    web3: AsyncWeb3[Any], owner: LocalAccount, controller: str
) -> Deployment | None:
    """The contracts that were deployed before, or None on a chain that does not have them."""
    await asyncio.to_thread(load)
    if not await web3.eth.get_code(web3.to_checksum_address(controller)):
        return None
    abi = artifact("Controller").abi
    registry = web3.eth.contract(address=web3.to_checksum_address(controller), abi=abi)
    contracts = {
        name: await registry.functions.getContract(keccak(name.encode())).call()
        for name in _REGISTERED
    }
    return Deployment(web3, owner, controller, contracts)


def account_of(private_key: bytes) -> LocalAccount:
    account: LocalAccount = Account.from_key(private_key)
    return account


async def _create(web3: AsyncWeb3[Any], owner: LocalAccount, kind: str, *arguments: Any) -> str:
    compiled = artifact(kind)
    factory = web3.eth.contract(abi=compiled.abi, bytecode=compiled.bytecode)
    receipt = await _send(web3, owner, factory.constructor(*arguments), 0)
    return str(receipt["contractAddress"])


async def _send(
    web3: AsyncWeb3[Any],
    account: LocalAccount,
    call: AsyncContractFunction | AsyncContractConstructor | TxParams,
    value: int,
    gas: int | None = None,
) -> TxReceipt:
    base: TxParams = {
        "from": account.address,
        "value": Wei(value),  # type: ignore[typeddict-item]  # web3's own name for an int
        "nonce": await web3.eth.get_transaction_count(account.address, "pending"),
        "chainId": await web3.eth.chain_id,
        "maxPriorityFeePerGas": Wei(0),  # type: ignore[typeddict-item]
        "maxFeePerGas": Wei(10**11),  # type: ignore[typeddict-item]
    }
    if gas is not None:
        base["gas"] = gas
    try:
        if isinstance(call, dict):
            transaction: TxParams = {**base, "gas": 21_000, **call}
        else:
            transaction = await call.build_transaction(base)
        signed = account.sign_transaction(transaction)  # type: ignore[arg-type]
        sent = await web3.eth.send_raw_transaction(signed.raw_transaction)
    except Exception as error:  # web3 has a dozen of them, and each says what the chain said
        raise DevnetError(f"the chain refused a transaction: {error}") from error
    receipt = await web3.eth.wait_for_transaction_receipt(sent, timeout=60, poll_latency=0.05)
    if receipt["status"] != 1:
        raise DevnetError(f"transaction {sent.hex()} was reverted")
    return receipt
