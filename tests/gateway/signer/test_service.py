"""A whole signer: settings, port, orchestrators."""

import asyncio
from pathlib import Path
from typing import Any

import pytest
from aiohttp import ClientSession, web

from gateway.config import GatewaySettings
from gateway.signer.service import open_signer
from network.errors import ConfigError
from network.runtime.clock import SystemClock
from tests.gateway.signer.signing_desk import SIGNER, StubOutlook
from tests.gateway.stub_orchestrator import StubModel, StubOrchestrator, running


def settings(folder: Path, *uris: str, **signer: Any) -> GatewaySettings:
    return GatewaySettings.model_validate(
        {
            "data_dir": folder,
            "default_model": "m",
            "orchestrators": [{"uri": uri} for uri in uris],
            "signer": {"listen": "127.0.0.1:0", **signer},
        }
    )


async def test_a_signer_serves_its_account_and_the_orchestrators_of_the_settings(
    tmp_path: Path,
) -> None:
    stub = StubOrchestrator(models={"m": StubModel(), "dear": StubModel(price=StubModel().price)})
    async with (
        running(stub),
        open_signer(
            settings(tmp_path, stub.uri, max_price="5"), SIGNER, StubOutlook(), SystemClock()
        ) as served,
        ClientSession() as client,
        asyncio.timeout(20),
    ):
        async with client.post(f"{served.url}/sign-orchestrator-info") as response:
            assert (await response.json())["address"] == served.address
        while True:
            async with client.get(f"{served.url}/discover-orchestrators") as response:
                listed = await response.json()
                if response.status == 200:
                    break
                assert response.status == 503
                await asyncio.sleep(0.02)
        assert [entry["address"] for entry in listed] == [stub.uri]
        assert "text-to-image/m" in listed[0]["capabilities"]
        # It asks in its own account's name, as its clients will.
        assert {request.address for request in stub.requests} == {SIGNER.address}


async def test_a_public_port_that_asks_nobody_is_refused(tmp_path: Path) -> None:
    for listen in ("0.0.0.0:0", "[::]:0", "gateway.example:0"):
        with pytest.raises(ConfigError, match=r"signer\.listen.*spend.*webhook_url"):
            async with open_signer(
                settings(tmp_path, listen=listen), SIGNER, StubOutlook(), SystemClock()
            ):
                pass


@pytest.mark.parametrize("way", [{"webhook_url": "http://127.0.0.1:1"}, {"allow_no_auth": True}])
async def test_a_public_port_is_opened_with_a_webhook_or_on_demand(
    tmp_path: Path, way: dict[str, Any]
) -> None:
    chosen = settings(tmp_path, listen="0.0.0.0:0", **way)
    async with (
        open_signer(chosen, SIGNER, StubOutlook(), SystemClock()) as served,
        ClientSession() as client,
    ):
        url = f"http://127.0.0.1:{served.url.rpartition(':')[2]}"
        async with client.post(f"{url}/sign-orchestrator-info") as response:
            assert response.status == (200 if "allow_no_auth" in way else 500)


async def test_a_port_that_is_taken_is_named(tmp_path: Path) -> None:
    runner = web.AppRunner(web.Application())
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    taken = f"127.0.0.1:{runner.addresses[0][1]}"
    with pytest.raises(ConfigError, match="cannot listen on"):
        async with open_signer(
            settings(tmp_path, listen=taken), SIGNER, StubOutlook(), SystemClock()
        ):
            pass
    await runner.cleanup()
