"""The chain that runs without anvil answers as nodes do: refusals, batches, what clients ask for."""

from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Any

import aiohttp
import pytest
from eth_account.signers.local import LocalAccount
from web3 import AsyncHTTPProvider, AsyncWeb3

from network.devnet.anvil import free_port
from network.devnet.deployment import ETHER, Deployment, Rules, account_of
from network.devnet.in_process import running_in_process
from network.devnet.refusals import refusal
from network.errors import ConfigError
from network.identity import KeySigner
from tests.devnet import CHAIN_ID, OWNER_KEY

TICKETS = "no unlock request in progress"
#: Error(string) of that.
TICKETS_DATA = (
    "0x08c379a0" + f"{32:064x}{len(TICKETS):064x}" + TICKETS.encode().hex().ljust(64, "0")
)


@dataclass(slots=True)
class InProcess:
    """A chain of py-evm with our contracts, asked over HTTP."""

    url: str
    contracts: Deployment
    session: aiohttp.ClientSession
    owner: LocalAccount = field(default_factory=lambda: account_of(OWNER_KEY))

    async def post(self, body: Any) -> Any:
        data = body if isinstance(body, bytes) else None
        async with self.session.post(
            self.url, data=data, json=None if data is not None else body
        ) as response:
            return await response.json()

    async def rpc(self, method: str, *parameters: Any) -> Any:
        body = {"jsonrpc": "2.0", "id": 7, "method": method, "params": list(parameters)}
        answer = await self.post(body)
        assert answer.pop("id") == 7
        assert answer.pop("jsonrpc") == "2.0"
        return answer

    def cancel_unlock(self) -> dict[str, Any]:
        """A call that reverts."""
        call = self.contracts.contract("TicketBroker").encode_abi("cancelUnlock", [])
        return {"from": self.owner.address, "to": self.broker, "data": call}

    @property
    def broker(self) -> str:
        return str(self.contracts.contract("TicketBroker").address)

    async def signed(self, nonce: int, value: int = 0) -> str:
        transaction = {
            "to": self.owner.address,
            "value": value,
            "gas": 21_000,
            "nonce": nonce,
            "chainId": CHAIN_ID,
            "maxFeePerGas": 10**9,
            "maxPriorityFeePerGas": 0,
        }
        signed = self.owner.sign_transaction(transaction)  # type: ignore[arg-type]
        return "0x" + bytes(signed.raw_transaction).hex()


@pytest.fixture
async def chain() -> AsyncIterator[InProcess]:
    port = free_port()
    async with running_in_process(port, CHAIN_ID, KeySigner(OWNER_KEY).address):
        url = f"http://127.0.0.1:{port}"
        web3 = AsyncWeb3(AsyncHTTPProvider(url))
        contracts = await Deployment.deploy(web3, account_of(OWNER_KEY), Rules(round_length=500))
        async with aiohttp.ClientSession() as session:
            yield InProcess(url, contracts, session)
        await web3.provider.disconnect()


async def test_it_answers_what_clients_ask_and_refuses_in_a_nodes_words(chain: InProcess) -> None:
    """One test of many questions: starting py-evm takes longer than all of them."""
    await _reverts_carry_the_contracts_words(chain)
    await _transactions_are_refused_as_nodes_refuse_them(chain)
    await _many_calls_are_answered_at_once(chain)
    await _what_fees_are_reckoned_from_is_there(chain)
    await _a_transaction_that_reverts_has_a_receipt(chain)


async def _reverts_carry_the_contracts_words(chain: InProcess) -> None:
    expected = {"code": 3, "message": f"execution reverted: {TICKETS}", "data": TICKETS_DATA}
    call = chain.cancel_unlock()
    assert await chain.rpc("eth_call", call, "latest") == {"error": expected}
    assert await chain.rpc("eth_estimateGas", call) == {"error": expected}
    silent = {"code": 3, "message": "execution reverted", "data": "0x"}
    unknown = {"to": chain.broker, "data": "0xdeadbeef"}
    assert await chain.rpc("eth_call", unknown, "latest") == {"error": silent}


async def _transactions_are_refused_as_nodes_refuse_them(chain: InProcess) -> None:
    nonce = int(
        (await chain.rpc("eth_getTransactionCount", chain.owner.address, "pending"))["result"], 16
    )
    raw = await chain.signed(nonce)
    assert "result" in await chain.rpc("eth_sendRawTransaction", raw)
    for late in (raw, await chain.signed(nonce, value=1)):
        error = (await chain.rpc("eth_sendRawTransaction", late))["error"]
        assert error == {
            "code": -32000,
            "message": f"nonce too low: next nonce {nonce + 1}, tx nonce {nonce}",
        }
    poor = await chain.signed(nonce + 1, value=10**6 * ETHER)
    error = (await chain.rpc("eth_sendRawTransaction", poor))["error"]
    assert error["message"].startswith("insufficient funds for gas * price + value")
    error = (await chain.rpc("eth_nonsense"))["error"]
    assert "eth_nonsense" in error["message"]


async def _many_calls_are_answered_at_once(chain: InProcess) -> None:
    calls: list[Any] = [
        {"jsonrpc": "2.0", "id": "a", "method": "eth_chainId", "params": []},
        5,
        {"jsonrpc": "2.0", "id": "b", "method": "net_version"},
    ]
    first, broken, last = await chain.post(calls)
    assert first == {"jsonrpc": "2.0", "id": "a", "result": hex(CHAIN_ID)}
    assert broken["error"]["code"] == -32600
    assert last["result"] == str(CHAIN_ID)
    assert (await chain.post(b"{"))["error"]["code"] == -32600


async def _what_fees_are_reckoned_from_is_there(chain: InProcess) -> None:
    history = (await chain.rpc("eth_feeHistory", "0x2", "latest", [50]))["result"]
    assert len(history["gasUsedRatio"]) == 2
    for method in ("eth_maxPriorityFeePerGas", "eth_gasPrice", "eth_blockNumber"):
        assert (await chain.rpc(method))["result"].startswith("0x")


async def _a_transaction_that_reverts_has_a_receipt(chain: InProcess) -> None:
    nonce = await chain.contracts.web3.eth.get_transaction_count(chain.owner.address)
    transaction = {
        **chain.cancel_unlock(),
        "value": 0,
        "gas": 200_000,
        "nonce": nonce,
        "chainId": CHAIN_ID,
        "maxFeePerGas": 10**9,
        "maxPriorityFeePerGas": 0,
    }
    del transaction["from"]
    signed = chain.owner.sign_transaction(transaction)
    raw = "0x" + bytes(signed.raw_transaction).hex()
    sent = (await chain.rpc("eth_sendRawTransaction", raw))["result"]
    receipt = (await chain.rpc("eth_getTransactionReceipt", sent))["result"]
    assert receipt["status"] == "0x0"


class PanicError(Exception):
    """As web3 raises it."""

    data = "0x4e487b71" + f"{0x11:064x}"


@pytest.mark.parametrize(
    ("error", "code", "message", "data"),
    [
        (PanicError("Panic error 0x11"), 3, "execution reverted: Panic error 0x11", PanicError.data),
        (ValueError("execution reverted: b'\\x01\\x02'"), 3, "execution reverted", "0x0102"),
        (ValueError("execution reverted: b'"), 3, "execution reverted: b'", None),
        (ValueError("Invalid transaction nonce: Expected 5, but got 9"), -32000,
         "nonce too high: next nonce 5, tx nonce 9", None),
        (KeyError(), -32000, "KeyError", None),
    ],
)  # fmt: skip
def test_refusals_have_a_nodes_codes(
    error: Exception, code: int, message: str, data: str | None
) -> None:
    told = refusal(error)
    assert (told["code"], told["message"]) == (code, message)
    if data is not None:
        assert told["data"] == data


async def test_a_port_that_is_taken_is_named(chain: InProcess) -> None:
    port = int(chain.url.rpartition(":")[2])
    with pytest.raises(ConfigError, match=str(port)):
        async with running_in_process(port, CHAIN_ID, KeySigner(OWNER_KEY).address):
            pass
