"""A chain inside this process, behind JSON-RPC: for machines without anvil. It keeps nothing.

py-evm runs the contracts, eth-tester makes blocks of it, web3's provider names its answers as nodes
do; what is left for us is HTTP and the hexadecimal numbers. Everything but HTTP runs on one thread, for
none of it may be used by two.
"""

import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from typing import Any, Final

import orjson
import structlog
from aiohttp import web

from network.devnet.refusals import refusal
from network.errors import ConfigError
from network.units import Address

_ETHER: Final = 10**18
_MOST_BODY: Final = 4 * 2**20
_MALFORMED: Final = -32600
_GAS_PRICE: Final = 1000
_MOST_MINED: Final = 10_000
_FEES: Final = frozenset({"gasPrice", "maxFeePerGas", "maxPriorityFeePerGas"})
_NO_FEES: Final = {"maxFeePerGas": "0x0", "maxPriorityFeePerGas": "0x0"}

log = structlog.get_logger(__name__)


class _Chain:
    """What the thread works on. No method may run on another."""

    def __init__(self, chain_id: int, owner: Address) -> None:
        # Heavy, and needed only where there is no anvil.
        from eth_tester import EthereumTester, PyEVMBackend  # noqa: PLC0415
        from web3 import EthereumTesterProvider, Web3  # noqa: PLC0415

        rich = {"balance": 10_000 * _ETHER, "nonce": 0, "code": b"", "storage": {}}
        # Blocks of one transaction leave a base fee of nothing at nothing: whoever has no ether can
        # be asked what its call would give.
        genesis = {**PyEVMBackend.generate_genesis_params(), "base_fee_per_gas": 0}
        backend = PyEVMBackend(genesis_parameters=genesis, genesis_state={owner: rich})
        type(backend.chain).chain_id = chain_id
        self._tester = EthereumTester(backend)
        web3 = Web3(EthereumTesterProvider(self._tester))
        # It looks for names in what it takes for a transaction, and breaks on eth_getLogs.
        web3.middleware_onion.remove("ens_name_to_address")
        self._ask = web3.provider.request_func(web3, web3.middleware_onion)
        self._constants: Mapping[str, object] = {
            "eth_chainId": chain_id,
            "net_version": str(chain_id),
            "eth_gasPrice": _GAS_PRICE,
            "eth_maxPriorityFeePerGas": 0,
        }

    def mine(self, blocks: int = 1) -> None:
        self._tester.mine_blocks(blocks)

    def answer(self, call: Mapping[str, Any]) -> dict[str, Any]:
        """A JSON-RPC answer."""
        told = {"jsonrpc": "2.0", "id": call.get("id")}
        method, parameters = call.get("method"), call.get("params") or []
        if not isinstance(method, str) or not isinstance(parameters, list):
            return told | {"error": {"code": _MALFORMED, "message": "no method and params"}}
        try:
            return told | {"result": _hexed(self._result(method, parameters))}
        except Exception as error:  # noqa: BLE001 - whatever it is, the caller is told
            return told | {"error": refusal(error)}

    def _result(self, method: str, parameters: list[Any]) -> object:
        if method in self._constants:
            return self._constants[method]
        if method in {"evm_mine", "anvil_mine"}:
            self.mine(min(int(str(parameters[0]), 16) if parameters else 1, _MOST_MINED))
            return "0x0"
        if method in {"eth_call", "eth_estimateGas"} and parameters:
            free = {name: value for name, value in parameters[0].items() if name not in _FEES}
            parameters = [free | _NO_FEES, *parameters[1:]]
        answer = self._ask(method, parameters)
        if "error" in answer:
            raise ValueError(str(answer["error"].get("message", answer["error"])))
        return answer["result"]


class _Served:
    """The chain over HTTP."""

    def __init__(self, chain: _Chain, thread: ThreadPoolExecutor) -> None:
        self._chain = chain
        self._thread = thread

    async def post(self, request: web.Request) -> web.Response:
        try:
            asked = orjson.loads(await request.read())
        except orjson.JSONDecodeError:
            asked = None
        calls = asked if isinstance(asked, list) else [asked]
        answers = [await self._answer(call) for call in calls]
        body = answers if isinstance(asked, list) else answers[0]
        return web.Response(body=orjson.dumps(body), content_type="application/json")

    async def _answer(self, call: object) -> dict[str, Any]:
        if not isinstance(call, dict):
            error = {"code": _MALFORMED, "message": "this is no JSON-RPC request"}
            return {"jsonrpc": "2.0", "id": None, "error": error}
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._thread, self._chain.answer, call)


@asynccontextmanager
async def running_in_process(port: int, chain_id: int, owner: Address) -> AsyncIterator[None]:
    """Serve a new chain at 127.0.0.1 for the length of the block; `evm_mine` mines its blocks.

    `owner` is born rich.

    Raises ConfigError where py-evm is not installed, or the port is taken.
    """
    with ThreadPoolExecutor(1, thread_name_prefix="py-evm") as thread:
        loop = asyncio.get_running_loop()
        try:
            chain = await loop.run_in_executor(thread, _Chain, chain_id, owner)
        except ImportError as error:
            raise ConfigError(
                "devnet",
                f"neither anvil nor py-evm is here ({error}); install anvil, or this package with "
                "its extra: pip install 'limner[devnet]'",
            ) from None
        served = _Served(chain, thread)
        app = web.Application(client_max_size=_MOST_BODY)
        app.router.add_post("/", served.post)
        runner = web.AppRunner(app, handle_signals=False, access_log=None, shutdown_timeout=1)
        await runner.setup()
        try:
            await web.TCPSite(runner, "127.0.0.1", port).start()
            yield
        except OSError as error:
            where = f"127.0.0.1:{port}"
            raise ConfigError("port", f"cannot listen on {where}: {error.strerror}") from error
        finally:
            await runner.cleanup()


def _hexed(value: object) -> object:
    """As JSON-RPC writes it: quantities and bytes in hex, the rest as it is."""
    if isinstance(value, bool) or value is None or isinstance(value, str | float):
        return value
    if isinstance(value, int):
        return hex(value)
    if isinstance(value, bytes | bytearray):
        return "0x" + value.hex()
    if isinstance(value, Mapping):
        return {str(key): _hexed(inner) for key, inner in value.items()}
    if isinstance(value, Sequence):
        return [_hexed(inner) for inner in value]
    raise TypeError(f"{type(value).__name__} has no form in JSON-RPC")
