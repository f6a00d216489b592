"""`limner-node prices`: wei, dollars, and where the rate is from."""

import asyncio
import json
from pathlib import Path

from click.testing import CliRunner, Result

from network.runtime.clock import SystemClock
from node.__main__ import main
from tests.devnet import CHAIN_ID, Devnet
from tests.network.chain.feeds import deploy_feed


def prices(folder: Path, text: str, *arguments: str) -> Result:
    config = folder / "node.toml"
    config.write_text(text)
    words = ["prices", "--config", str(config), "--data-dir", str(folder / "data"), *arguments]
    return CliRunner().invoke(main, words)


def test_a_fixed_rate_tells_dollars(tmp_path: Path) -> None:
    text = 'price = "1.9073484e-08USD"\nusd_per_eth = 4000\n'
    found = json.loads(prices(tmp_path, text, "--json").output)
    (model,) = found["models"]
    assert model["listed"] == "0.000000019073484 USD"
    assert (model["wei_per_pixel"], model["usd_per_image"]) == ("4768371", "0.020000")
    assert found["rate"]["per_eth"] == "4000"
    table = prices(tmp_path, text).output
    assert "4768371" in table
    assert "0.020000" in table
    assert "1 ETH = 4000 USD (usd_per_eth)" in table


def test_without_a_rate_wei_are_told(tmp_path: Path) -> None:
    result = prices(tmp_path, "price = 7")
    assert result.exit_code == 0
    assert "What an ETH costs is not known" in result.output
    refused = prices(tmp_path, 'price = "7 USD"')
    assert refused.exit_code == 1
    assert "usd_per_eth" in refused.output


async def test_a_feed_is_asked_and_its_age_told(devnet: Devnet, tmp_path: Path) -> None:
    feed = await deploy_feed(devnet)
    await feed.set(4000 * 10**8, SystemClock().now() - 100)
    network = tmp_path / "network.json"
    save = devnet.contracts.save
    await asyncio.to_thread(save, network, CHAIN_ID, devnet.chain.url, "anvil")
    text = (
        f'price = "1.9073484e-08USD"\n[chain]\nnetwork = "{network}"\n'
        f'[price_feed]\naddress = "{feed.contract.address}"\n'
    )
    table = await asyncio.to_thread(prices, tmp_path, text)
    assert table.exit_code == 0, table.output
    assert "4768371" in table.output
    assert f"1 ETH = 4000 USD (price feed {feed.contract.address}, written 1" in table.output
    await feed.set(0, SystemClock().now())
    found = json.loads((await asyncio.to_thread(prices, tmp_path, text, "--json")).output)
    assert found["models"][0]["wei_per_pixel"] is None
    assert "not known just now" in found["models"][0]["problem"]
    assert "no price" in found["rate"]["problem"]
