"""The gateway's doctor before real orchestrators, a real chain and real broken things."""

import asyncio
import json
import socket
from collections.abc import Mapping, Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web
from click.testing import CliRunner, Result

from gateway.__main__ import main
from gateway.app import open_gateway
from gateway.config import GatewaySettings
from gateway.doctor.books import judge_file
from gateway.doctor.checkup import examine_gateway
from gateway.home import open_gateway_database
from gateway.keys import UseLimits, create_key
from network.devnet.anvil import free_port
from network.devnet.deployment import ETHER, account_of
from network.doctor.report import exit_status
from network.doctor.running import Section
from network.dollars import parse_usd
from network.findings import Finding, Verdict
from network.keystore import create_keystore
from network.runtime.clock import SystemClock
from network.units import Wei
from tests.devnet import CHAIN_ID, Devnet
from tests.gateway.identity import make_cheap_identity
from tests.gateway.signer.operator import operator_on
from tests.gateway.signer.test_signer_process import serving as signing
from tests.gateway.stub_orchestrator import StubModel, StubOrchestrator, running
from tests.gateway.test_app import settings_for
from tests.gateway.test_keyless_app import TOKEN, guarding
from tests.network.doctor.chains import network_file
from tests.network.reachability.certificates import HOUR, write_certificate

#: The key of `make_cheap_identity`.
GATEWAY_SECRET = b"\x22" * 32


async def examined(settings: GatewaySettings) -> tuple[Section, ...]:
    return await examine_gateway(settings, SystemClock())


def by_name(sections: Sequence[Section]) -> Mapping[str, Finding]:
    return {one.what: one for section in sections for one in section.findings}


async def home(folder: Path, *uris: str, **others: object) -> GatewaySettings:
    """Settings of a gateway with an account and one key."""
    settings = settings_for(folder, *uris, **others)
    await make_cheap_identity(settings.data_dir)
    async with open_gateway_database(settings) as database:
        await create_key(database, SystemClock(), name="alice")
    return settings


async def onchain(
    devnet: Devnet,
    folder: Path,
    *uris: str,
    chain_id: int = CHAIN_ID,
    places: Mapping[str, str] | None = None,
) -> GatewaySettings:
    network = await network_file(devnet, folder, chain_id=chain_id)
    return await home(folder, *uris, chain={"network": str(network)}, **(places or {}))


async def test_budgets_in_dollars_want_a_rate(tmp_path: Path) -> None:
    settings = await home(tmp_path)
    what = "budgets in dollars"
    assert what not in by_name(await examined(settings))
    async with open_gateway_database(settings) as database:
        limits = UseLimits(usd_per_day=parse_usd("5 usd"))
        await create_key(database, SystemClock(), name="bob", limits=limits)
    found = by_name(await examined(settings))[what]
    assert found.verdict is Verdict.FAIL
    assert found.detail.startswith("usd_per_eth: ")
    known = settings.model_copy(update={"usd_per_eth": Fraction(3000)})
    assert by_name(await examined(known))[what].verdict is Verdict.OK


async def test_a_gateway_that_is_well_passes(devnet: Devnet, tmp_path: Path) -> None:
    await devnet.orchestrator()
    await devnet.contracts.fund_sender(await _funded(devnet), Wei(ETHER), Wei(ETHER))
    await devnet.next_round()
    listen, admin = (f"127.0.0.1:{free_port()}" for _ in range(2))
    places = {"listen": listen, "admin_listen": admin, "public_url": f"http://{listen}"}
    async with running(StubOrchestrator()) as stub:
        settings = await onchain(devnet, tmp_path, stub.uri, places=places)
        async with open_gateway(settings, SystemClock()):
            found = by_name(sections := await examined(settings))
    bad = {one.what for one in found.values() if one.verdict in (Verdict.FAIL, Verdict.WARN)}
    assert bad <= {"clock"}, bad  # a busy machine may be late to look at it
    assert exit_status(sections) == 0
    assert f"http://{listen}" in found["running gateway"].detail
    assert found["public_url"].detail == f"http://{listen} leads here"
    assert found["keys"].detail == "1 that work"
    assert found["offers of m"].detail.startswith("1 of 1 may be bought")
    assert found["reserve"].verdict is Verdict.OK


async def _funded(devnet: Devnet) -> Any:
    account = account_of(GATEWAY_SECRET)
    await devnet.rpc("anvil_setBalance", account.address, hex(10 * ETHER))
    return account


async def test_a_deposit_that_unlocks_and_one_that_was_never_made(
    devnet: Devnet, tmp_path: Path
) -> None:
    await devnet.orchestrator()
    settings = await onchain(devnet, tmp_path)
    poor = by_name(await examined(settings))
    assert poor["deposit"].verdict is Verdict.FAIL
    assert poor["reserve"].verdict is Verdict.FAIL
    assert poor["reserve"].advice == "limner-gateway fund --reserve"
    account = await _funded(devnet)
    await devnet.contracts.fund_sender(account, Wei(ETHER), Wei(ETHER))
    broker = devnet.contracts.contract("TicketBroker").functions
    await devnet.contracts.send(account, broker.unlock())
    leaving = by_name(await examined(settings))
    assert leaving["unlocking"].verdict in (Verdict.WARN, Verdict.FAIL)
    assert "unlock in round" in leaving["unlocking"].detail
    assert leaving["unlocking"].advice.endswith("limner-gateway unlock --cancel")


async def test_another_chain_and_a_dead_endpoint(devnet: Devnet, tmp_path: Path) -> None:
    wrong = await onchain(devnet, tmp_path / "wrong", chain_id=CHAIN_ID + 1)
    found = by_name(await examined(wrong))
    assert found["endpoint 127.0.0.1"].verdict is Verdict.FAIL
    assert f"serves chain {CHAIN_ID}" in found["endpoint 127.0.0.1"].detail
    assert found["funds"].verdict is Verdict.SKIP
    network = await network_file(devnet, tmp_path)
    chain = {"network": str(network), "rpc": ["http://127.0.0.1:9/a-secret-key"]}
    sections = await examined(await home(tmp_path / "dead", chain=chain))
    assert by_name(sections)["endpoint 127.0.0.1"].verdict is Verdict.FAIL
    assert by_name(sections)["funds"].verdict is Verdict.SKIP
    assert "a-secret-key" not in repr(sections)


async def test_orchestrators_are_judged_by_what_they_answer(tmp_path: Path) -> None:
    dear = StubOrchestrator(models={"m": StubModel(price=Fraction(9))})
    dead = "http://127.0.0.1:9"
    async with running(dear) as stub:
        settings = await home(tmp_path, stub.uri, dead, routing={"max_price": "2"})
        found = by_name(sections := await examined(settings))
    assert found[stub.uri].verdict is Verdict.OK
    assert found[dead].verdict is Verdict.WARN
    assert found["offers of m"].verdict is Verdict.FAIL
    assert "everybody is excluded" in found["offers of m"].detail
    assert exit_status(sections) == 1


async def test_a_cap_in_dollars_is_told_in_wei(tmp_path: Path) -> None:
    models = {"m": StubModel(price=Fraction(9))}
    async with running(StubOrchestrator(models=models)) as stub:
        settings = await home(
            tmp_path, stub.uri, routing={"max_price": "2e-18USD"}, usd_per_eth="1"
        )
        found = by_name(await examined(settings))
    assert found["offers of m"].verdict is Verdict.FAIL
    assert "routing.max_price is 2:" in found["offers of m"].detail


async def test_without_orchestrators_nobody_is_bought_from(tmp_path: Path) -> None:
    found = by_name(await examined(await home(tmp_path)))
    assert found["orchestrators"].verdict is Verdict.FAIL


async def test_a_new_folder_is_left_as_it_is_and_told_what_comes_next(tmp_path: Path) -> None:
    settings = settings_for(tmp_path, "http://127.0.0.1:9")
    found = by_name(sections := await examined(settings))
    assert exit_status(sections) == 0
    assert found["keystore"].verdict is Verdict.SKIP
    assert found["keys"].advice == "limner-gateway keys create NAME"
    assert not await asyncio.to_thread(settings.data_dir.exists)


async def test_a_database_that_is_damaged_is_a_failure(tmp_path: Path) -> None:
    settings = settings_for(tmp_path)
    await make_cheap_identity(settings.data_dir)
    await asyncio.to_thread(
        (settings.data_dir / "gateway.sqlite3").write_bytes, b"no database " * 100
    )
    found = by_name(await examined(settings))
    assert found["database"].verdict is Verdict.FAIL
    assert "gateway.sqlite3" in found["database"].detail


async def test_a_database_on_no_server_is_a_failure_without_its_password(tmp_path: Path) -> None:
    url = "postgresql+psycopg://me:a-secret@127.0.0.1:9/books"
    sections = await examined(settings_for(tmp_path, accounting={"database_url": url}))
    assert by_name(sections)["database"].verdict is Verdict.FAIL
    assert "a-secret" not in repr(sections)


def test_a_file_that_is_not_there_is_no_fault(tmp_path: Path) -> None:
    assert judge_file(tmp_path / "none") is None
    assert not (tmp_path / "none").exists()


async def test_a_signer_that_is_not_there_fails(devnet: Devnet, tmp_path: Path) -> None:
    network = await network_file(devnet, tmp_path)
    settings = settings_for(
        tmp_path,
        chain={"network": str(network)},
        payments={"signer_url": "http://127.0.0.1:9", "signer_token": "a-secret"},
    )
    sections = await examined(settings)
    found = by_name(sections)
    assert found["signer"].verdict is Verdict.FAIL
    assert "payments.signer_token" in found["signer"].advice
    assert "a-secret" not in repr(sections)


async def test_a_signer_takes_one_token_and_no_other(devnet: Devnet, tmp_path: Path) -> None:
    folder = tmp_path / "signer"
    folder.mkdir()
    sender = await devnet.sender()
    operator = await operator_on(devnet, folder, sender)
    async with (
        guarding() as gatekeeper,
        signing(operator, "--webhook-url", gatekeeper.url) as program,
    ):
        found = []
        for token in (TOKEN, "another-token"):
            settings = settings_for(
                tmp_path,
                chain={"network": str(folder / "network.json")},
                payments={"signer_url": program.ready.url, "signer_token": token},
            )
            found.append(by_name(await examined(settings)))
    taken, refused = found
    assert taken["signer"].detail == f"signs for {sender.address}"
    assert taken["deposit"].verdict is Verdict.OK
    assert refused["signer"].verdict is Verdict.FAIL
    assert "401: no such token" in refused["signer"].detail
    assert refused["funds"].verdict is Verdict.SKIP


async def test_taken_ports_and_expired_certificates(tmp_path: Path) -> None:
    path = tmp_path / "tls.pem"
    write_certificate(path, name="localhost", begins=-2 * HOUR, ends=-HOUR)
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        settings = await home(
            tmp_path,
            listen=f"127.0.0.1:{port}",
            tls={"certificate": path, "key": path},
        )
        found = by_name(await examined(settings))
    assert found["listen"].verdict is Verdict.FAIL
    assert "(pid " in found["listen"].detail
    assert found["certificate"].verdict is Verdict.FAIL


async def test_keys_over_the_network_without_tls_are_a_warning(tmp_path: Path) -> None:
    settings = await home(tmp_path, listen="0.0.0.0:0")
    assert by_name(await examined(settings))["TLS"].verdict is Verdict.WARN
    broken = await home(
        tmp_path, tls={"certificate": tmp_path / "gone.pem", "key": tmp_path / "gone.pem"}
    )
    assert by_name(await examined(broken))["TLS"].verdict is Verdict.FAIL


async def test_a_public_url_that_leads_elsewhere_is_a_failure(tmp_path: Path) -> None:
    runner = web.AppRunner(web.Application())
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        elsewhere = f"http://127.0.0.1:{runner.addresses[0][1]}"
        admin = f"127.0.0.1:{free_port()}"
        settings = await home(tmp_path, public_url=elsewhere, admin_listen=admin)
        async with open_gateway(settings, SystemClock()):
            found = by_name(await examined(settings))
    finally:
        await runner.cleanup()
    assert found["public_url"].verdict is Verdict.FAIL
    assert "something else than this gateway" in found["public_url"].detail


async def test_another_gateway_on_our_ports_is_not_taken_for_ours(tmp_path: Path) -> None:
    listen, admin = (f"127.0.0.1:{free_port()}" for _ in range(2))
    places = {"listen": listen, "admin_listen": admin}
    other = await home(tmp_path / "other", **places)
    ours = settings_for(tmp_path / "ours", **places)
    data = ours.data_dir
    await make_cheap_identity(data)
    await _other_account(data)
    async with open_gateway(other, SystemClock()):
        found = by_name(await examined(ours))
    assert found["listen"].verdict is Verdict.FAIL
    assert found["running gateway"].verdict is Verdict.WARN
    assert "another gateway answers" in found["running gateway"].detail


async def _other_account(data: Path) -> None:
    await asyncio.to_thread((data / "keystore.json").unlink)
    await create_keystore(data / "keystore.json", "test", b"\x33" * 32, scrypt_n=2)


def typed(*words: str) -> Result:
    return CliRunner().invoke(main, ["doctor", *words])


@pytest.fixture
def config(tmp_path: Path) -> Path:
    path = tmp_path / "gateway.toml"
    path.write_text(
        f'data_dir = "{tmp_path / "data"}"\nlisten = "127.0.0.1:{free_port()}"\n'
        f'admin_listen = "127.0.0.1:{free_port()}"\n'
    )
    return path


def test_the_command_on_a_machine_where_a_gateway_may_start(config: Path) -> None:
    result = typed("--config", str(config))
    assert result.exit_code == 0, result.output
    assert "  ok    listen: " in result.stdout
    assert "        -> limner-gateway keys create NAME" in result.stdout


def test_the_command_tells_programs_and_ends_with_1_where_something_fails(config: Path) -> None:
    data = config.with_name("data")
    data.mkdir(mode=0o700)
    (data / "keystore.json").write_bytes(b"no keystore")
    (data / "keystore.passphrase").write_text("test")
    (data / "keystore.passphrase").chmod(0o644)
    result = typed("--config", str(config), "--json")
    assert result.exit_code == 1
    told = json.loads(result.stdout)
    assert told["verdict"] == "fail"
    subjects = {section["subject"]: section["findings"] for section in told["sections"]}
    assert [one["verdict"] for one in subjects["account"]] == ["fail", "warn"]


def test_a_wrong_setting_is_a_finding_too(config: Path) -> None:
    config.write_text("listen = 3\n")
    result = typed("--config", str(config), "--json")
    assert result.exit_code == 1
    (section,) = json.loads(result.stdout)["sections"]
    assert "listen" in section["findings"][0]["detail"]
