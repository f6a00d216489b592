"""A whole gateway that finds its orchestrators: by webhook, from memory, and within its operator's terms."""

import asyncio
import json
from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from structlog.testing import capture_logs

from gateway.app import probe_orchestrators
from gateway.cli import orchestrators
from gateway.config import GatewaySettings
from gateway.discovery.opening import source_names
from gateway.signer.service import open_signer
from network.capabilities import TEXT_TO_IMAGE, Capabilities, ModelConstraint, node_capabilities
from network.errors import ConfigError
from network.identity import checksum
from network.runtime.clock import SystemClock
from network.units import Address
from tests.gateway.discovery.listing_server import listing
from tests.gateway.signer.signing_desk import SIGNER, StubOutlook
from tests.gateway.stub_orchestrator import StubModel, StubOrchestrator, running
from tests.gateway.test_app import Stage, serving, settings_for
from tests.gateway.waiting import until_async

OK = 200


def discovering(folder: Path, *uris: str, **others: Any) -> GatewaySettings:
    """Settings with other sources than the settings, read often."""
    discovery = {"webhook_seconds": 0.1, "remote_seconds": 0.1, **others.pop("discovery", {})}
    return settings_for(folder, *uris, discovery=discovery, **others)


async def states(stage: Stage) -> dict[str, dict[str, Any]]:
    return {one["uri"]: one for one in (await stage.status())["orchestrators"]}


async def refusal(stage: Stage, **fields: object) -> tuple[int, str]:
    response = await stage.post(**fields)
    return response.status, (await response.json())["error"]["message"]


async def test_a_webhook_adds_and_takes_away_orchestrators(tmp_path: Path) -> None:
    one, two = StubOrchestrator(), StubOrchestrator({"n": StubModel()})
    async with running(one), running(two), listing(one.uri, "http://u:p@x/") as server:
        settings = discovering(tmp_path, discovery={"webhook_url": f"{server.url}/list"})
        async with serving(settings) as stage:
            assert (await stage.post()).status == 200
            status = await stage.status()
            assert [line["sources"] for line in status["orchestrators"]] == [["webhook"]]
            source = next(line for line in status["sources"] if line["source"] == "webhook")
            assert (source["listed"], source["problem"], source["skipped_count"]) == (1, "", 1)
            assert server.url not in json.dumps(status["sources"])

            server.uris = [two.uri]

            async def has_followed() -> bool:
                return list(await states(stage)) == [two.uri] and two.requests != []

            await until_async(has_followed)
            await until_async(lambda: is_known(stage, "n"))
            assert (await stage.post(model_id="n")).status == 200
            assert (await refusal(stage))[0] == 404

            server.status = 500
            await until_async(lambda: has_problem(stage, "it answered 500"))
            assert (await stage.post(model_id="n")).status == 200


async def is_known(stage: Stage, model: str) -> bool:
    models: list[str] = (await stage.status())["models"]
    return model in models


async def has_problem(stage: Stage, problem: str) -> bool:
    return any(problem in one["problem"] for one in (await stage.status())["sources"])


async def test_after_a_restart_the_gateway_serves_from_what_it_knew(tmp_path: Path) -> None:
    """The webhook is gone, and so is one of the two: nobody waits for either."""
    one, two = StubOrchestrator(), StubOrchestrator({"m": StubModel(Fraction(1, 2))})
    async with running(one):
        async with running(two), listing(one.uri, two.uri) as server:
            settings = discovering(tmp_path, discovery={"webhook_url": f"{server.url}/list"})
            async with serving(settings) as stage:
                assert (await stage.post()).status == 200
                await until_async(lambda: are_ready(stage, 2))
        one.models["m"].price = Fraction(3)
        asked = len(one.requests)
        async with serving(settings) as stage:
            # The cheaper one is remembered, found dead, and the other one asked what it costs now.
            response = await stage.post()
            assert response.status == 200
            assert one.delivered == 1
            assert len(one.requests) > asked
            assert one.seen[-1].payment.expected_price == 3
            await until_async(lambda: are_ready(stage, 1))
            left = await states(stage)
            assert left[two.uri]["is_remembered"] is True
            assert left[two.uri]["state"] == "stale"
            assert left[two.uri]["age_seconds"] > 0
            assert left[two.uri]["sources"] == ["webhook"]


async def are_ready(stage: Stage, count: int) -> bool:
    return [one["state"] for one in (await states(stage)).values()].count("ready") == count


async def test_what_is_remembered_is_shown_as_stale_until_it_is_asked(tmp_path: Path) -> None:
    stub = StubOrchestrator()
    async with running(stub):
        settings = discovering(tmp_path, stub.uri)
        async with serving(settings):
            pass
        stub.info = "hang"
        async with serving(settings) as stage:
            # A start that waits for nobody: three seconds were the price of not knowing.
            told = (await states(stage))[stub.uri]
            assert (told["state"], told["is_remembered"]) == ("stale", True)
            assert [model["id"] for model in told["models"]] == ["m"]
            assert (await stage.status())["serving"] is False
            stub.info = "answer"

            async def is_asked() -> bool:
                return bool((await states(stage))[stub.uri]["state"] == "ready")

            await until_async(is_asked)
            assert (await stage.post()).status == 200


async def test_a_broken_memory_is_no_reason_not_to_start(tmp_path: Path) -> None:
    stub = StubOrchestrator()
    async with running(stub):
        settings = discovering(tmp_path, stub.uri)
        async with serving(settings):
            pass
        (settings.data_dir / "orchestrators.json").write_bytes(b'{"version": 1, "li')
        with capture_logs() as logs:
            async with serving(settings) as stage:
                assert (await stage.post()).status == 200
        assert "remembered_orchestrators_ignored" in {line["event"] for line in logs}


async def test_whoever_is_on_the_blocklist_gets_no_job(tmp_path: Path) -> None:
    by_uri, by_account = StubOrchestrator(), StubOrchestrator()
    async with running(by_uri), running(by_account):
        account = checksum(Address(b"\x01" * 20))
        discovery = {"blocked_uris": [by_uri.uri], "blocked_accounts": [account]}
        settings = discovering(tmp_path, by_uri.uri, by_account.uri, discovery=discovery)
        async with serving(settings) as stage:
            status, message = await refusal(stage)
            assert status == 503
            assert "on the blocklist" in message
            told = await states(stage)
            assert list(told) == [by_account.uri]
            assert told[by_account.uri]["state"] == "excluded"
            assert account in told[by_account.uri]["problem"]
            skipped = (await stage.status())["sources"][0]["skipped"]
            assert skipped == [{"entry": by_uri.uri, "reason": "it is on the blocklist"}]
    assert not by_uri.requests
    assert not by_uri.seen
    assert not by_account.seen


def of_version(version: str) -> Capabilities:
    return node_capabilities({"m": ModelConstraint(warm=True, capacity=2)}, version)


@pytest.mark.parametrize(
    ("least", "version", "status"),
    [
        ("0.4.1", "0.4.1", 200),
        ("0.4.0", "0.4.1", 200),
        ("0.4.2", "0.4.1", 503),
        ("0.4.1", "0.4.1-b3278dce-dirty", 200),
        ("0.4.2", "0.4.1-b3278dce-dirty", 503),
        ("", "0.4.1", 200),
        ("", "", 200),
        ("0.4.0", "", 503),
        ("0.4.0", "undefined", 503),
        ("0.4.1", "nonparsablesemversion", 503),
    ],
)
async def test_the_minimum_version_is_livepeers_rule(
    tmp_path: Path, least: str, version: str, status: int
) -> None:
    """Vectors of go-livepeer's tests (wire, 8.8)."""
    stub = StubOrchestrator(capabilities=of_version(version))
    async with running(stub):
        settings = discovering(tmp_path, stub.uri, discovery={"min_version": least})
        async with serving(settings) as stage:
            said, message = await refusal(stage) if status != OK else (OK, "")
            assert (await stage.post()).status == said == status
            if status != OK:
                assert "older than the minimum version" in message
                assert (await states(stage))[stub.uri]["state"] == "excluded"
    asked = [one.capabilities for one in stub.requests if one.capabilities is not None]
    assert {one.min_version for one in asked} == {least}
    assert all(
        seen.credentials.capabilities is not None
        and seen.credentials.capabilities.min_version == least
        for seen in stub.seen
    )
    assert TEXT_TO_IMAGE in asked[0].models


def capped(**prices: str) -> str:
    return json.dumps(
        {
            "capabilities_prices": [
                {"pipeline": "text-to-image", "model_id": model, "price_per_unit": price}
                for model, price in prices.items()
            ]
        }
    )


async def test_a_models_own_maximum_price_is_never_exceeded(tmp_path: Path) -> None:
    models = {"m": StubModel(Fraction(5, 2)), "n": StubModel(Fraction(5, 2))}
    stub = StubOrchestrator(models)
    file = tmp_path / "prices.json"
    file.write_text(capped(m="5/2", default="7/3"))
    async with running(stub):
        for given in (str(file), json.loads(file.read_text())):
            routing = {"refresh_seconds": 0.3, "max_price_per_capability": given}
            async with serving(discovering(tmp_path, stub.uri, routing=routing)) as stage:
                assert (await stage.post()).status == 200
                status, message = await refusal(stage, model_id="n")
                assert status == 503
                assert "price cap of 7/3 wei per pixel; the cheapest asks 2.5" in message
        routing = {"max_price_per_capability": capped(m="5/2"), "max_price": "2"}
        async with serving(discovering(tmp_path, stub.uri, routing=routing)) as stage:
            assert "price cap of 2 wei" in (await refusal(stage))[1]
        # At 2000 USD an ETH these are 5/2 and 2 wei.
        routing = {"max_price_per_capability": capped(m="5e-15 USD", default="4e-15 USD")}
        settings = discovering(tmp_path, stub.uri, routing=routing, usd_per_eth="2000")
        async with serving(settings) as stage:
            assert (await stage.post()).status == 200
            assert "price cap of 2 wei" in (await refusal(stage, model_id="n"))[1]
    assert {seen.body["model_id"] for seen in stub.seen} == {"m"}


@pytest.mark.parametrize(
    ("given", "said"),
    [("/nowhere/prices.json", "cannot read"), ('{"a": 1}', "capabilities_prices"), ("{", "JSON")],
)
async def test_prices_that_cannot_be_read_end_the_start(
    tmp_path: Path, given: str, said: str
) -> None:
    routing = {"max_price_per_capability": given}
    with pytest.raises(ConfigError, match=said) as wrong:
        async with serving(settings_for(tmp_path, routing=routing)):
            pass
    assert wrong.value.key == "routing.max_price_per_capability"


async def test_a_probe_reads_the_same_sources_and_leaves_no_trace(tmp_path: Path) -> None:
    stub = StubOrchestrator()
    async with running(stub), listing(stub.uri) as server:
        settings = discovering(tmp_path, discovery={"webhook_url": server.url})
        lines = await probe_orchestrators(settings)
    assert [(line["uri"], line["state"], line["sources"]) for line in lines] == [
        (stub.uri, "ready", ["webhook"])
    ]
    assert not (settings.data_dir / "orchestrators.json").exists()


SIGNER_URL = {"signer_url": "http://127.0.0.1:1"}


@pytest.mark.parametrize(
    ("changes", "names"),
    [
        ({}, ()),
        ({"chain": {"network": "n.json"}}, ("chain",)),
        ({"chain": {"network": "n.json"}, "orchestrators": [{"uri": "http://x"}]}, ()),
        ({"chain": {"network": "n.json"}, "discovery": {"webhook_url": "http://x"}}, ("webhook",)),
        ({"chain": {"network": "n.json"}, "payments": SIGNER_URL}, ("signer",)),
        (
            {"chain": {"network": "n.json"}, "payments": SIGNER_URL, "discovery": {"chain": True}},
            ("chain",),
        ),
        ({"chain": {"network": "n.json"}, "discovery": {"chain": False}}, ()),
        (
            {
                "chain": {"network": "n.json"},
                "orchestrators": [{"uri": "http://x"}],
                "discovery": {"chain": True, "webhook_url": "http://x", "remote_url": "http://y"},
            },
            ("webhook", "signer", "chain"),
        ),
    ],
)
def test_which_sources_are_read(changes: dict[str, Any], names: tuple[str, ...]) -> None:
    assert source_names(GatewaySettings.model_validate(changes)) == names


@pytest.mark.parametrize(
    ("discovery", "key"),
    [
        ({"chain": True}, "discovery.chain"),
        ({"blocked_uris": ["ftp://x"]}, "discovery.blocked_uris"),
    ],
)
async def test_a_setting_that_cannot_be_is_named(
    tmp_path: Path, discovery: dict[str, Any], key: str
) -> None:
    with pytest.raises(ConfigError) as wrong:
        async with serving(settings_for(tmp_path, discovery=discovery)):
            pass
    assert wrong.value.key == key


async def test_a_gateway_finds_by_our_signer_what_the_signer_found_by_a_webhook(
    tmp_path: Path,
) -> None:
    stub = StubOrchestrator()
    async with running(stub), listing(stub.uri) as server:
        selling = discovering(
            tmp_path / "signer",
            discovery={"webhook_url": server.url},
            signer={"listen": "127.0.0.1:0"},
        )
        selling.data_dir.mkdir(parents=True)
        async with open_signer(selling, SIGNER, StubOutlook(), SystemClock()) as signer:
            settings = discovering(tmp_path, discovery={"remote_url": signer.url})
            async with serving(settings) as stage:
                await until_async(lambda: are_ready(stage, 1))
                assert (await states(stage))[stub.uri]["sources"] == ["signer"]
                assert (await stage.post()).status == 200


async def test_the_operator_sees_source_age_and_reason_in_a_table(tmp_path: Path) -> None:
    good, old = StubOrchestrator(), StubOrchestrator(capabilities=of_version("0.1.0"))
    async with running(good), running(old), listing(good.uri, old.uri, "ftp://x") as server:
        discovery = {"webhook_url": server.url, "min_version": "0.2.0"}
        good.capabilities = of_version("0.2.0")
        async with serving(discovering(tmp_path, discovery=discovery)) as stage:
            server.status = 500
            await until_async(lambda: has_problem(stage, "it answered 500"))
            words = ["--admin-url", stage.gateway.admin_url]
            told = await asyncio.to_thread(CliRunner().invoke, orchestrators.command, words)
    assert told.exit_code == 0
    rows = [[cell.strip() for cell in line.split("│")[1:-1]] for line in told.stdout.splitlines()]
    shown = {row[0]: row for row in rows if row and row[0].startswith("http")}
    assert shown[good.uri][1:3] == ["webhook", "ready"]
    assert shown[good.uri][3].endswith(" s")
    assert shown[old.uri][1:3] == ["webhook", "excluded"]
    assert "older than the minimum version (0.1.0 < 0.2.0)" in shown[old.uri][-1]
    assert "webhook: it answered 500; its last list of 2 is used" in told.stderr
    assert "webhook: not used: ftp://x: it is neither http nor https" in told.stderr
