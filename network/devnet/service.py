"""A running development network: a chain, its contracts, a node's and a gateway's account on it."""

import asyncio
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import structlog
from eth_account.signers.local import LocalAccount
from web3 import AsyncHTTPProvider, AsyncWeb3
from web3.types import RPCEndpoint

from network.devnet.anvil import Anvil, AnvilError, AnvilOptions, end_of, find_anvil, running_anvil
from network.devnet.deployment import (
    ETHER,
    Deployment,
    DevnetError,
    Rules,
    find_deployment,
)
from network.devnet.home import Home
from network.devnet.in_process import running_in_process
from network.errors import ConfigError
from network.identity import parse_address
from network.runtime.clock import Clock
from network.runtime.supervisor import supervise
from network.units import Wei

#: Not one that another network has.
CHAIN_ID: Final = 412346
_BLOCK_SECONDS: Final = 1
_ROUND_CHECK_SECONDS: Final = 0.5
_OWNERS_ETHER: Final = 10_000 * ETHER
_POCKET_MONEY: Final = Wei(100 * ETHER)
_STAKE: Final = Wei(1000 * ETHER)
_DEPOSIT: Final = Wei(10 * ETHER)
_RESERVE: Final = Wei(10 * ETHER)

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Options:
    """What `limner-devnet run` is told."""

    port: int = 8545
    rules: Rules = field(default_factory=Rules)
    service_uri: str = "https://127.0.0.1:8936"
    may_use_anvil: bool = True


@dataclass(frozen=True, slots=True)
class Devnet:
    """A devnet that serves."""

    url: str
    engine: str
    contracts: Deployment
    node: LocalAccount
    gateway: LocalAccount
    #: Set where the chain is a process of its own.
    anvil: Anvil | None
    log: Path

    async def check(self) -> None:
        """Raises AnvilError once the chain's process ended by itself."""
        if self.anvil is not None and not self.anvil.is_running:
            said = await asyncio.to_thread(end_of, self.log)
            raise AnvilError(
                "anvil ended by itself; start again with what it wrote last, or with --reset; "
                f"the end of {self.log}:\n{said}"
            )


@asynccontextmanager
async def open_devnet(home: Home, options: Options, clock: Clock) -> AsyncIterator[Devnet]:
    """Serve JSON-RPC on loopback, rounds going on, until the block is left.

    Raises ConfigError, DevnetError, AnvilError.
    """
    async with AsyncExitStack() as stack:
        owner = await asyncio.to_thread(home.owner)
        _require_free(options.port)
        supervisor = await stack.enter_async_context(supervise(clock))
        url = f"http://127.0.0.1:{options.port}"
        anvil = await _start_chain(stack, home, options, owner)
        web3 = AsyncWeb3(AsyncHTTPProvider(url))
        stack.push_async_callback(web3.provider.disconnect)
        if anvil is not None and not await web3.eth.get_balance(owner.address):
            await _rpc(web3, "anvil_setBalance", owner.address, hex(_OWNERS_ETHER))
        contracts = await _contracts(web3, owner, home, options.rules)
        node, gateway = await home.account("node"), await home.account("gateway")
        await _prepare(contracts, node, gateway, options.service_uri)
        if anvil is not None:
            # Until here each transaction had a block of its own: nobody waits for what is prepared.
            await _rpc(web3, "evm_setIntervalMining", _BLOCK_SECONDS)
        else:
            supervisor.start("blocks", lambda: _every(_BLOCK_SECONDS, lambda: _mine(web3)))
        engine = "py-evm" if anvil is None else "anvil"
        await asyncio.to_thread(contracts.save, home.network_file, CHAIN_ID, url, engine)
        supervisor.start("rounds", lambda: _keep_rounds(contracts))
        yield Devnet(url, engine, contracts, node, gateway, anvil, home.log_file)


async def _start_chain(
    stack: AsyncExitStack,
    home: Home,
    options: Options,
    owner: LocalAccount,
) -> Anvil | None:
    program = await asyncio.to_thread(find_anvil) if options.may_use_anvil else None
    if program is not None:
        running = running_anvil(
            program, AnvilOptions(options.port, CHAIN_ID, home.state_file), home.log_file
        )
        # The loop's threads live until the loop ends, as anvil needs of the one that starts it.
        anvil = await asyncio.to_thread(running.__enter__)
        stack.push_async_callback(asyncio.to_thread, running.__exit__, None, None, None)
        return anvil
    address = parse_address(owner.address)
    await stack.enter_async_context(running_in_process(options.port, CHAIN_ID, address))
    return None


async def _contracts(
    web3: AsyncWeb3[Any], owner: LocalAccount, home: Home, rules: Rules
) -> Deployment:
    known = await asyncio.to_thread(home.known_controller)
    if known is not None:
        found = await find_deployment(web3, owner, known)
        if found is not None:
            await found.set_round_length(rules.round_length)
            await found.initialize_round()
            return found
    return await Deployment.deploy(web3, owner, rules)


async def _prepare(
    contracts: Deployment, node: LocalAccount, gateway: LocalAccount, service_uri: str
) -> None:
    """Give each what it needs, unless an earlier start did."""
    for account in (node, gateway):
        if await contracts.web3.eth.get_balance(account.address) < _POCKET_MONEY // 2:
            await contracts.give_ether(parse_address(account.address), _POCKET_MONEY)
    bonding = contracts.contract("BondingManager").functions
    if not await bonding.isRegisteredTranscoder(node.address).call():
        await contracts.register_orchestrator(node, _STAKE, service_uri)
    await contracts.set_service_uri(node, service_uri)
    (deposit, _), (reserve, _) = (
        await contracts.contract("TicketBroker").functions.getSenderInfo(gateway.address).call()
    )
    if deposit < _DEPOSIT // 2 or reserve < _RESERVE // 2:
        await contracts.fund_sender(gateway, _DEPOSIT, _RESERVE)
    if not await bonding.isActiveTranscoder(node.address).call():
        # A newcomer is active from the next round on, and nobody likes to wait for that.
        await _skip_to_next_round(contracts)


def _require_free(port: int) -> None:
    """Whoever answers there already would pass for the chain that we start. Raises ConfigError."""
    try:
        socket.create_server(("127.0.0.1", port)).close()
    except OSError as error:
        raise ConfigError(
            "port",
            f"127.0.0.1:{port} is taken, by another limner-devnet perhaps; stop that, or choose "
            "another with --port",
        ) from error


async def _skip_to_next_round(contracts: Deployment) -> None:
    rounds = contracts.contract("RoundsManager").functions
    start, length = await rounds.currentRoundStartBlock().call(), await rounds.roundLength().call()
    left = start + length - await contracts.web3.eth.block_number
    await _rpc(contracts.web3, "anvil_mine", hex(max(left, 1)))
    await contracts.initialize_round()


async def _keep_rounds(contracts: Deployment) -> None:
    async def initialize() -> None:
        if await contracts.initialize_round():
            log.info("round initialised", round=await contracts.current_round())

    await _every(_ROUND_CHECK_SECONDS, initialize)


async def _mine(web3: AsyncWeb3[Any]) -> None:
    await _rpc(web3, "evm_mine")


async def _rpc(web3: AsyncWeb3[Any], method: str, *parameters: object) -> None:
    """A call that nodes of real networks do not have. Raises DevnetError."""
    answer = await web3.provider.make_request(RPCEndpoint(method), list(parameters))
    if "error" in answer:
        raise DevnetError(f"the chain refused {method}: {answer['error']}")


async def _every(seconds: float, act: Callable[[], Awaitable[None]]) -> None:
    while True:
        await asyncio.sleep(seconds)
        await act()
