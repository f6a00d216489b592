"""`register_runner` of Livepeer's Python SDK, unmodified: an app in a process of its own joins our node."""

import asyncio
import json
import subprocess
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest

from tests.devnet import Devnet
from tests.interop.sdk import HERE, Sdk, running_sdk, sdk_python
from tests.interop.test_gateway_sdk import node_on, signer_for
from tests.node.api.test_runners import RUNNERS, SECRET, free_port
from tests.node.apps.callers import listed
from tests.node.nodes import Buyer, eventually, running_node

pytestmark = [pytest.mark.interop, pytest.mark.slow]

APP = "acme/upscaler"
TOLD: dict[str, Any] = {
    "secret": SECRET,
    "app": APP,
    "mode": "single-shot",
    "price": 0.003,
    "unit": "fixed",
    "capacity": 2,
    "metadata": "upscales",
    # In place of our five seconds.
    "heartbeat_interval_s": 0.2,
}


@pytest.fixture
async def sdk() -> AsyncIterator[Sdk]:
    async with running_sdk() as sdk:
        yield sdk


@asynccontextmanager
async def registered(url: str, **told: Any) -> AsyncIterator[str]:
    """The app, for the length of the block; its id."""
    python = await asyncio.to_thread(sdk_python)
    process = await asyncio.create_subprocess_exec(
        python,
        HERE / "gateway_sdk_runner.py",
        json.dumps({**TOLD, "orchestrator_url": url, **told}),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    assert process.stdout is not None
    assert process.stdin is not None
    try:
        async with asyncio.timeout(60):
            line = await process.stdout.readline()
        assert line, "the app ended; its own words are above"
        yield json.loads(line)["ready"]
    finally:
        process.stdin.close()
        assert await process.wait() == 0


async def test_an_app_joins_is_called_through_the_node_and_leaves(
    sdk: Sdk, tmp_path: Path
) -> None:
    async with (
        running_node(tmp_path, listen="https://127.0.0.1:0", **RUNNERS) as node,
        Buyer(node) as buyer,
    ):
        async with registered(node.url) as runner_id:
            (other,) = await listed(buyer, f"?app={APP}")
            assert other["url"] == f"{node.url}/apps/{runner_id}/app"
            assert (other["metadata"], other["capacity"]) == ("upscales", 2)
            found = await sdk.ask(
                "data", orchestrators=node.url, app=APP, body={"scale": 2}, timeout=60
            )
            assert json.loads(found["body"]) == {"scale": 2}
            assert found["headers"]["Livepeer-Runner-Route"] == runner_id
            assert found["headers"].keys() == {"Livepeer-Runner-Route", "Livepeer-Session-Id"}
            image = await sdk.ask("call", runner_url=f"{other['url']}/image", timeout=60)
            assert image["content_type"] == "image/png"
            lines = await sdk.ask("stream", runner_url=f"{other['url']}/events")
            assert lines["lines"] == ["data: 0", "", "data: 1", "", "data: 2", ""]
        assert await listed(buyer, f"?app={APP}") == []


async def test_an_app_with_sessions_which_is_what_the_sdk_registers_unasked(
    sdk: Sdk, tmp_path: Path
) -> None:
    async with (
        running_node(tmp_path, listen="https://127.0.0.1:0", **RUNNERS) as node,
        Buyer(node) as buyer,
        registered(node.url, mode="persistent", price=0, unit="hour", capacity=1),
    ):
        # One place: each is given back before the next is reserved.
        for _ in range(2):
            found = await sdk.ask(
                "session", orchestrators=node.url, app=APP, timeout=60, paths=["/a", "/b"]
            )
            assert [one["path"] for one in found["answers"]] == ["/a", "/b"]

            async def is_over(session: str = found["session"]) -> bool:
                state: str = (await buyer.get(f"/jobs/{session}/receipt")).json["state"]
                return state == "delivered"

            await eventually(is_over)


async def test_a_call_of_an_app_is_paid_by_our_signer_to_the_wei(
    sdk: Sdk, devnet: Devnet, tmp_path: Path
) -> None:
    async with (
        node_on(devnet, tmp_path / "node", scheme="https", **RUNNERS, usd_per_eth="3000") as node,
        Buyer(node) as auditor,
        signer_for(devnet, tmp_path / "signer") as signer,
        registered(node.url),
    ):
        wei = 10**12  # 0.003 USD
        for _ in range(3):
            found = await sdk.ask(
                "data",
                orchestrators=node.url,
                app=APP,
                body={"scale": 2},
                signer_url=signer.url,
                timeout=60,
            )
            assert json.loads(found["body"]) == {"scale": 2}
            assert signer.payments[found["session"]].price == wei
            receipt = (await auditor.get(f"/jobs/{found['session']}/receipt")).json
            assert (receipt["state"], receipt["charged"]) == ("delivered", str(wei))
            assert Fraction(receipt["credited"]) == signer.payments[found["session"]].value
        status = (await auditor.get("/status", admin=True)).json
        assert (status["earned_since_start"], status["held"]) == (str(3 * wei), "0")


async def test_an_app_outlives_a_restart_of_the_node_and_keeps_its_place(
    sdk: Sdk, tmp_path: Path
) -> None:
    listen = f"http://127.0.0.1:{free_port()}"
    settings = {**RUNNERS, "listen": listen}
    async with AsyncExitStack() as apps:
        async with running_node(tmp_path, **settings):
            runner_id = await apps.enter_async_context(registered(listen))
        async with running_node(tmp_path, **settings) as node, Buyer(node) as buyer:

            async def is_back() -> bool:
                return bool(await listed(buyer, f"?app={APP}"))

            # Its heartbeat is answered with 401, upon which it registers with the first secret again.
            await eventually(is_back, 30)
            (line,) = (await buyer.get("/status", admin=True)).json["apps_of_others"]["runners"]
            assert line["id"] == runner_id
            found = await sdk.ask("data", orchestrators=listen, app=APP, body={}, timeout=60)
            assert found["headers"]["Livepeer-Runner-Route"] == runner_id
            await apps.aclose()
            assert not await is_back()


async def test_a_wrong_secret_is_told_in_our_words(tmp_path: Path) -> None:
    async with running_node(tmp_path, **RUNNERS) as node:
        python = await asyncio.to_thread(sdk_python)
        process = await asyncio.create_subprocess_exec(
            python,
            HERE / "gateway_sdk_runner.py",
            json.dumps({**TOLD, "orchestrator_url": node.url, "secret": "another"}),
            stdin=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
        )
        _, told = await process.communicate()
        assert process.returncode == 1
        assert b"HTTP 401" in told
        assert b"Wrong secret." in told
