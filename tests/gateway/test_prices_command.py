"""`limner-gateway prices`: what the running gateway would pay."""

import asyncio
import json
from fractions import Fraction
from pathlib import Path

from click.testing import CliRunner, Result

from gateway.__main__ import main
from tests.gateway.stub_orchestrator import StubModel, StubOrchestrator, running
from tests.gateway.test_app import serving, settings_for


async def prices(*arguments: str) -> Result:
    return await asyncio.to_thread(CliRunner().invoke, main, ["prices", *arguments])


async def test_the_cheapest_of_a_model_comes_first_with_its_dollars(tmp_path: Path) -> None:
    dear = StubOrchestrator({"m": StubModel(Fraction(9536742))})
    cheap = StubOrchestrator({"m": StubModel(Fraction(4768371))})
    async with running(dear), running(cheap):
        settings = settings_for(tmp_path, dear.uri, cheap.uri, usd_per_eth="4000")
        async with serving(settings) as stage:
            found = json.loads(
                (await prices("--admin-url", stage.gateway.admin_url, "--json")).output
            )
            assert [
                (line["orchestrator"], line["wei_per_pixel"], line["usd_per_image"])
                for line in found["prices"]
            ] == [(cheap.uri, "4768371", "0.020000"), (dear.uri, "9536742", "0.040000")]
            table = await prices("--admin-url", stage.gateway.admin_url)
            assert "1 ETH = 4000 USD (usd_per_eth)" in table.output
            assert "0.020000" in table.output


async def test_without_a_gateway_that_is_told(tmp_path: Path) -> None:
    result = await prices("--admin-url", "http://127.0.0.1:9", "--data-dir", str(tmp_path))
    assert result.exit_code == 1
    assert "no gateway answers" in result.output
