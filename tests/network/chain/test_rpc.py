"""Endpoints fail, lag and lie; what asks them goes on as long as one does not."""

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from dataclasses import dataclass

import pytest
from structlog.testing import capture_logs

from network.chain.endpoint import revert_reason
from network.chain.model import (
    ChainError,
    ChainUnavailableError,
    RefusedError,
    RevertedError,
    WrongChainError,
)
from network.chain.rpc import Rpc, open_rpc
from network.errors import ConfigError
from tests.network.chain.endpoints import FakeEndpoint, RpcRefusal, endpoints

CHAIN = 7


class TestClock:
    """Moves when told."""

    __test__ = False

    def __init__(self) -> None:
        self.time = 1000.0

    def now(self) -> float:
        return self.time

    def monotonic(self) -> float:
        return self.time


@dataclass(frozen=True, slots=True)
class Pair:
    """Two endpoints, and our view of them."""

    first: FakeEndpoint
    second: FakeEndpoint
    rpc: Rpc
    clock: TestClock


@pytest.fixture
async def pair() -> AsyncIterator[Pair]:
    clock = TestClock()
    async with AsyncExitStack() as stack:
        first, second = await stack.enter_async_context(
            endpoints(FakeEndpoint(CHAIN), FakeEndpoint(CHAIN))
        )
        rpc = await stack.enter_async_context(
            open_rpc((first.url, second.url), CHAIN, clock, timeout_seconds=5)
        )
        yield Pair(first, second, rpc, clock)


async def test_the_first_endpoint_answers_while_it_works(pair: Pair) -> None:
    for _ in range(3):
        assert await pair.rpc.request("eth_blockNumber") == "0x64"
    assert pair.first.asked == ["eth_chainId", *["eth_blockNumber"] * 3]
    assert pair.second.asked == []


@pytest.mark.parametrize(
    ("status", "body"),
    [
        (500, b"oops"),
        (429, b"slow down"),
        (200, b"<html>"),
        (200, b"[]"),
        (200, b'{"jsonrpc":"2.0","id":99999,"result":"0x1"}'),
        (200, b'{"jsonrpc":"2.0","id":null}'),
        (200, b'{"jsonrpc":"2.0","id":null,"error":{"code":-32005,"message":"rate limited"}}'),
    ],
)
async def test_the_second_stands_in_for_one_that_fails_case_15(
    pair: Pair, status: int, body: bytes
) -> None:
    pair.first.status, pair.first.body = status, body
    assert await pair.rpc.request("eth_blockNumber") == "0x64"


async def test_an_endpoint_that_hangs_is_given_up_case_15() -> None:
    async with endpoints(FakeEndpoint(CHAIN), FakeEndpoint(CHAIN)) as (slow, quick):
        slow.gate.clear()
        urls = (slow.url, quick.url)
        async with open_rpc(urls, CHAIN, TestClock(), timeout_seconds=0.2) as rpc:
            assert await rpc.request("eth_blockNumber") == "0x64"


async def test_an_endpoint_that_went_down_comes_back_case_15(pair: Pair) -> None:
    """It is left alone after failures, and one question tells that it is back."""
    await pair.first.stop()
    with capture_logs() as logs:
        for _ in range(8):
            await pair.rpc.request("eth_blockNumber")
    assert [entry["event"] for entry in logs] == ["RPC endpoint keeps failing; it is left alone"]
    await pair.first.start()
    asked = len(pair.first.asked)
    await pair.rpc.request("eth_blockNumber")
    assert len(pair.first.asked) == asked

    pair.clock.time += 3
    await pair.rpc.request("eth_blockNumber")
    assert pair.first.asked[asked:] == ["eth_chainId", "eth_blockNumber"]


async def test_with_every_endpoint_down_the_error_names_them_without_secrets_case_15(
    pair: Pair,
) -> None:
    await pair.first.stop()
    pair.second.status = 503
    with pytest.raises(ChainUnavailableError) as failed:
        await pair.rpc.request("eth_blockNumber")
    assert f"127.0.0.1:{pair.first.port}" in str(failed.value)
    assert f"127.0.0.1:{pair.second.port} answers 503" in str(failed.value)
    assert "verysecret" not in str(failed.value)

    pair.second.status = 200
    assert await pair.rpc.request("eth_blockNumber") == "0x64"


async def test_another_chain_is_refused_at_start_case_28(pair: Pair) -> None:
    pair.second.chain_id = 8
    with pytest.raises(WrongChainError) as refused:
        await pair.rpc.check()
    text = str(refused.value)
    assert f"127.0.0.1:{pair.second.port} serves chain 8" in text
    assert "chain 7 is configured" in text
    assert "verysecret" not in text


async def test_an_endpoint_that_comes_back_as_another_chain_is_not_believed_case_28(
    pair: Pair,
) -> None:
    pair.second.answers["eth_blockNumber"] = lambda _: "0x2"
    assert await pair.rpc.request("eth_blockNumber") == "0x64"
    await pair.first.stop()
    await pair.rpc.request("eth_blockNumber")
    pair.first.chain_id = 8
    await pair.first.start()

    assert await pair.rpc.request("eth_blockNumber") == "0x2"
    assert pair.first.asked[-1] == "eth_chainId"


async def test_one_wrong_chain_alone_is_told_as_such_case_28() -> None:
    async with (
        endpoints(FakeEndpoint(8)) as (only,),
        open_rpc((only.url,), CHAIN, TestClock()) as rpc,
    ):
        with pytest.raises(WrongChainError):
            await rpc.request("eth_blockNumber")


async def test_an_endpoint_that_lags_is_passed_over_case_15(pair: Pair) -> None:
    assert (await pair.rpc.latest_block()).number == 100
    pair.first.block, pair.second.block = 90, 101
    assert (await pair.rpc.latest_block()).number == 101
    assert pair.rpc.newest_block == 101
    pair.second.block = 95
    with pytest.raises(ChainUnavailableError, match="is at block 90, behind 101"):
        await pair.rpc.latest_block()


async def test_when_all_say_so_for_long_the_chain_went_back(pair: Pair) -> None:
    await pair.rpc.latest_block()
    pair.first.block = pair.second.block = 60
    pair.clock.time += 61
    assert (await pair.rpc.latest_block()).number == 60


async def test_a_node_without_the_block_is_passed_over(pair: Pair) -> None:
    def lacks(_: list[object]) -> object:
        raise RpcRefusal("header not found")

    pair.first.answers["eth_call"] = lacks
    pair.second.answers["eth_call"] = lambda _: "0x07"
    assert await pair.rpc.request("eth_call", ({}, "0x64")) == "0x07"


async def test_a_revert_is_an_answer_and_keeps_its_reason(pair: Pair) -> None:
    text = b"ticket is used"
    data = (
        "0x08c379a0"
        + (32).to_bytes(32, "big").hex()
        + len(text).to_bytes(32, "big").hex()
        + text.ljust(32, b"\0").hex()
    )

    def reverts(_: list[object]) -> object:
        raise RpcRefusal("execution reverted", 3, data)

    pair.first.answers["eth_call"] = reverts
    with pytest.raises(RevertedError) as refused:
        await pair.rpc.request("eth_call", ({}, "latest"))
    assert refused.value.reason == "ticket is used"
    assert pair.second.asked == []

    def says(_: list[object]) -> object:
        raise RpcRefusal("execution reverted: system is paused")

    pair.first.answers["eth_call"] = says
    with pytest.raises(RevertedError) as refused:
        await pair.rpc.request("eth_call", ({}, "latest"))
    assert refused.value.reason == "system is paused"


@pytest.mark.parametrize("data", [None, "", "0x", "0xzz", "0x08c379a0", "0x08c379a0ff", {}, 7])
def test_a_revert_without_a_text_has_no_reason(data: object) -> None:
    assert revert_reason(data) == ""


async def test_a_request_that_nobody_serves_is_refused_at_once(pair: Pair) -> None:
    with pytest.raises(RefusedError, match="eth_nonsense does not exist"):
        await pair.rpc.request("eth_nonsense")
    assert pair.first.asked.count("eth_nonsense") == 1


async def test_a_broadcast_that_may_have_arrived_is_not_called_refused_case_18(
    pair: Pair,
) -> None:
    def refuses(_: list[object]) -> object:
        raise RpcRefusal("nonce too low")

    pair.first.status = 502
    pair.second.answers["eth_sendRawTransaction"] = refuses
    with pytest.raises(ChainUnavailableError):
        await pair.rpc.broadcast(b"raw")

    pair.first.status = 200
    pair.first.answers["eth_sendRawTransaction"] = refuses
    with pytest.raises(RefusedError, match="nonce too low"):
        await pair.rpc.broadcast(b"raw")


async def test_a_broadcast_again_is_no_error(pair: Pair) -> None:
    def knows(_: list[object]) -> object:
        raise RpcRefusal("already known")

    pair.first.answers["eth_sendRawTransaction"] = knows
    await pair.rpc.broadcast(b"raw")


async def test_what_is_no_url_is_a_setting_to_mend() -> None:
    with pytest.raises(ConfigError, match=r"chain\.rpc") as refused:
        async with open_rpc(("http://",), CHAIN, TestClock()):
            pytest.fail("opened")
    assert isinstance(refused.value, ConfigError)
    assert not issubclass(ConfigError, ChainError)
