"""The node's doctor before a real chain, real nodes and real broken things."""

import asyncio
import json
import random
import socket
from collections.abc import Mapping, Sequence
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from network.devnet.anvil import free_port
from network.devnet.deployment import ETHER, account_of
from network.doctor.report import exit_status
from network.doctor.running import Section
from network.findings import Finding, Verdict
from network.identity import checksum
from network.keystore import create_keystore
from network.runtime.clock import SystemClock
from network.units import Wei
from node.__main__ import main
from node.app import open_node
from node.config.settings import NodeSettings
from node.doctor.checkup import examine_node
from node.doctor.hardware import TorchFacts
from tests.devnet import CHAIN_ID, Devnet
from tests.network.doctor.chains import network_file
from tests.node.fakes import MODEL, FakeEngine
from tests.node.nodes import NODE_KEY, PASSPHRASE, running_node, settings_for

NODE_SECRET = b"\x11" * 32


@pytest.fixture(autouse=True)
def _locks_of_their_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Other programs of this user may hold the same account on another such chain."""
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))


async def torch() -> TorchFacts:
    """Asking the real one takes seconds; the command's test does."""
    return TorchFacts("2.13.0+cpu")


def nothing_wrong(_folder: Path) -> tuple[int, Sequence[str]]:
    return 2**30, ()


async def examined(settings: NodeSettings) -> tuple[Section, ...]:
    return await examine_node(
        settings,
        clock=SystemClock(),
        inspect=nothing_wrong,
        randomness=random.Random(1),  # noqa: S311  whom to ask for prices
        torch=torch,
    )


def by_name(sections: Sequence[Section]) -> Mapping[str, Finding]:
    return {one.what: one for section in sections for one in section.findings}


async def onchain(
    devnet: Devnet, folder: Path, *, chain_id: int = CHAIN_ID, rpc: str = "", **overrides: Any
) -> NodeSettings:
    """Settings of the node with NODE_KEY on a development chain."""
    network = await network_file(devnet, folder, chain_id=chain_id)
    chain = {"network": str(network), **({"rpc": [rpc]} if rpc else {})}
    return await settings_for(folder, chain={**chain, "poll_seconds": 0.1}, **overrides)


async def registers(devnet: Devnet, uri: str, ether: int = 10) -> None:
    """The node's account becomes an orchestrator, active from the next round on."""
    account = account_of(NODE_SECRET)
    await devnet.rpc("anvil_setBalance", account.address, hex(ether * ETHER))
    await devnet.contracts.register_orchestrator(account, Wei(100 * ETHER), uri)


async def test_a_node_that_is_well_passes(devnet: Devnet, tmp_path: Path) -> None:
    uri = f"https://127.0.0.1:{free_port()}"
    await registers(devnet, uri)
    await devnet.next_round()
    admin = f"127.0.0.1:{free_port()}"
    settings = await onchain(devnet, tmp_path, listen=uri, service_uri=uri, admin_listen=admin)
    async with AsyncExitStack() as stack:
        for name, price in (("one", "2"), ("two", "3")):
            models = [{"id": MODEL, "path": tmp_path / "model", "price": price}]
            other = await stack.enter_async_context(running_node(tmp_path / name, models=models))
            neighbour = await devnet.account()
            await devnet.contracts.register_orchestrator(neighbour, Wei(ETHER), other.url)
        await stack.enter_async_context(open_node(settings, engine_opener=FakeEngine().opener))
        found = by_name(sections := await examined(settings))
    bad = [one for one in found.values() if one.verdict is Verdict.FAIL]
    assert bad == []
    assert exit_status(sections) == 0
    assert checksum(NODE_KEY.address) in found["keystore"].detail
    assert found["active set"].verdict is Verdict.OK
    assert found["registered service URI"].detail == uri
    assert f"at {uri} is ready" in found["running node"].detail
    assert found["account"].verdict is Verdict.OK
    assert found["certificate"].verdict is Verdict.OK
    assert "1 of 2 others are cheaper, the median is 2.5 (2 that told" in (
        found[f"price of {MODEL}"].detail
    )


async def test_an_orchestrator_that_is_not_active_yet_and_found_elsewhere(
    devnet: Devnet, tmp_path: Path
) -> None:
    await registers(devnet, "https://old.example:8936")
    settings = await onchain(devnet, tmp_path, service_uri="https://new.example:8936")
    found = by_name(sections := await examined(settings))
    assert exit_status(sections) == 1
    assert found["stake"].verdict is Verdict.OK
    assert found["active set"].verdict is Verdict.FAIL
    assert found["registered service URI"].verdict is Verdict.FAIL
    assert found["registered service URI"].advice == (
        "limner-node service-uri https://new.example:8936"
    )
    # Nothing runs, which is no fault of the service URI.
    assert found["service URI"].verdict is Verdict.SKIP
    assert found["price"].verdict is Verdict.SKIP


async def test_an_account_that_nobody_registered_has_all_to_do(
    devnet: Devnet, tmp_path: Path
) -> None:
    found = by_name(await examined(await onchain(devnet, tmp_path)))
    for what in ("stake", "active set", "registered service URI", "ether for gas"):
        assert found[what].verdict is Verdict.FAIL
        assert found[what].advice


async def test_a_price_that_no_feed_tells_in_wei_is_a_failure(
    devnet: Devnet, tmp_path: Path
) -> None:
    models = [{"id": MODEL, "path": tmp_path / "model", "price": "1e-12USD"}]
    settings = await onchain(
        devnet, tmp_path, models=models, price_feed={"address": checksum(NODE_KEY.address)}
    )
    found = by_name(await examined(settings))["price"]
    assert found.verdict is Verdict.FAIL
    assert "usd_per_eth" in found.advice
    dollars = await onchain(devnet, tmp_path, models=models, usd_per_eth="2000")
    assert by_name(await examined(dollars))["price"].verdict is Verdict.SKIP


async def test_an_endpoint_of_another_chain_is_named(devnet: Devnet, tmp_path: Path) -> None:
    settings = await onchain(devnet, tmp_path, chain_id=CHAIN_ID + 1)
    sections = await examined(settings)
    found = by_name(sections)["endpoint 127.0.0.1"]
    assert found.verdict is Verdict.FAIL
    assert f"serves chain {CHAIN_ID}, not {CHAIN_ID + 1}" in found.detail
    assert exit_status(sections) == 1


async def test_a_dead_endpoint_is_told_and_hides_nothing_else(
    devnet: Devnet, tmp_path: Path
) -> None:
    settings = await onchain(devnet, tmp_path, rpc="http://127.0.0.1:9/a-secret-key")
    sections = await examined(settings)
    found = by_name(sections)
    assert found["endpoint 127.0.0.1"].verdict is Verdict.FAIL
    assert found["registration"].verdict is Verdict.SKIP
    assert found["keystore"].verdict is Verdict.OK
    assert found["listen"].verdict is Verdict.OK
    assert "a-secret-key" not in repr(sections)


async def test_taken_ports_missing_models_and_wrong_passphrases(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        settings = await settings_for(
            tmp_path,
            listen=f"https://127.0.0.1:{port}",
            models=[{"id": "org/gone", "path": tmp_path / "gone"}],
            keystore={"passphrase": "wrong"},
            safety={"checker": str(tmp_path / "no-checker")},
        )
        found = by_name(await examined(settings))
    assert found["listen"].verdict is Verdict.FAIL
    assert "(pid " in found["listen"].detail
    assert found["admin_listen"].verdict is Verdict.OK
    assert found["models"].verdict is Verdict.FAIL
    assert "org/gone" in found["models"].detail
    assert "the passphrase is wrong" in found["keystore"].detail
    assert found["safety checker"].verdict is Verdict.FAIL


async def test_a_node_whose_address_leads_to_another_is_told(tmp_path: Path) -> None:
    other = tmp_path / "other"
    async with running_node(tmp_path) as node:
        settings = await settings_for(
            other,
            service_uri=node.url,
            admin_listen=f"127.0.0.1:{free_port()}",
            keystore={"passphrase": PASSPHRASE},
        )
        # The same key would be the same account: this one has another.
        await _other_account(settings.data_dir)
        async with open_node(settings, engine_opener=FakeEngine().opener):
            found = by_name(await examined(settings))
    assert found["account"].verdict is Verdict.FAIL
    assert checksum(NODE_KEY.address) in found["account"].detail


async def _other_account(data_dir: Path) -> None:
    await asyncio.to_thread((data_dir / "keystore.json").unlink)
    await create_keystore(data_dir / "keystore.json", PASSPHRASE, b"\x22" * 32, scrypt_n=2)


async def test_a_node_that_does_not_answer_on_its_admin_port_is_told(tmp_path: Path) -> None:
    settings = await settings_for(tmp_path, admin_listen=f"127.0.0.1:{free_port()}")
    async with running_node(tmp_path):
        found = by_name(await examined(settings))
    assert found["running node"].verdict is Verdict.FAIL


async def test_settings_that_would_not_start_are_the_only_finding(tmp_path: Path) -> None:
    settings = await settings_for(tmp_path, listen="https://0.0.0.0:8936")
    (section,) = await examined(settings)
    (found,) = section.findings
    assert found.verdict is Verdict.FAIL
    assert "allowed_gateways" in found.detail


def typed(*words: str) -> Result:
    return CliRunner().invoke(main, ["doctor", *words])


@pytest.fixture
def config(tmp_path: Path) -> Path:
    path = tmp_path / "node.toml"
    path.write_text(
        f'data_dir = "{tmp_path / "data"}"\nlisten = "https://127.0.0.1:{free_port()}"\n'
        f'admin_listen = "127.0.0.1:{free_port()}"\nengine.device = "cpu"\n'
    )
    return path


def test_the_command_on_a_machine_where_a_node_may_start(config: Path) -> None:
    result = typed("--config", str(config))
    assert result.exit_code == 0, result.output
    assert "ok    PyTorch: " in result.stdout
    assert "ok    limner/shapes: " in result.stdout
    assert "0 failing" in result.stdout or "Nothing is wrong" in result.stdout
    # It makes nothing.
    assert not config.with_name("data").exists()


def test_the_command_tells_programs_and_ends_with_1_where_something_fails(config: Path) -> None:
    config.write_text(config.read_text() + '[[models]]\nid = "org/gone"\n')
    data = config.with_name("data")
    data.mkdir(mode=0o700)
    (data / "keystore.json").write_bytes(b"no keystore")
    result = typed("--config", str(config), "--json")
    assert result.exit_code == 1
    told = json.loads(result.stdout)
    assert told["verdict"] == "fail"
    subjects = {section["subject"]: section["findings"] for section in told["sections"]}
    assert subjects["models"][0]["verdict"] == "fail"
    assert subjects["account"][0]["verdict"] == "fail"
    assert "limner-node models pull" in subjects["models"][0]["advice"]


def test_a_wrong_setting_is_a_finding_too(config: Path) -> None:
    config.write_text('prise = "1"\n')
    result = typed("--config", str(config), "--json")
    assert result.exit_code == 1
    (section,) = json.loads(result.stdout)["sections"]
    assert "prise" in section["findings"][0]["detail"]
