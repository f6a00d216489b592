"""livepeer-gateway, Livepeer's Python SDK, unmodified: it finds our nodes, runs them free, and pays them by our signer."""

import os
import random
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import func, select

from network.devnet.deployment import ETHER, account_of
from network.identity import checksum
from network.units import Wei, fee, parse_price, pixels_of
from network.wire.headers import PAYER_ADDRESS
from node.accounting.tables import ends, payments
from node.app import RunningNode, open_node
from node.engine.work import ModelState
from scripts.local_network.network import MODEL as SHAPES
from scripts.local_network.network import LocalNetwork
from tests.devnet import CHAIN_ID, Devnet
from tests.gateway.signer.operator import operator_on
from tests.gateway.signer.test_signer_process import serving
from tests.interop.sdk import Sdk, Witness, running_sdk, witnessed
from tests.node.apps.callers import APP, Terms, call
from tests.node.fakes import MODEL, FakeEngine
from tests.node.nodes import GATEWAY_KEY, NODE_KEY, Buyer, eventually, running_node
from tests.node.payments.paid_nodes import PayingBuyer, in_books, network_file, paid_settings

pytestmark = [pytest.mark.interop, pytest.mark.slow]

#: For a longer run: how many calls of random sizes are priced, paid and compared.
REQUESTS = int(os.environ.get("LIMNER_APP_REQUESTS", "12"))
#: Wei per pixel; most fees have a part of a wei that is rounded.
PRICE = "7199999/3"
NODE = account_of(b"\x11" * 32)
GATEWAY = account_of(b"\x22" * 32)
SMALL = {"prompt": "a red heart", "width": 64, "height": 64, "num_inference_steps": 1}


@pytest.fixture(autouse=True)
def _locks_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A node holds its account for the whole machine; other runs of these tests have the same account."""
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))


@pytest.fixture
async def sdk() -> AsyncIterator[Sdk]:
    async with running_sdk() as sdk:
        yield sdk


@asynccontextmanager
async def node_on(
    devnet: Devnet,
    folder: Path,
    engine: FakeEngine | None = None,
    *,
    scheme: str,
    **overrides: Any,
) -> AsyncIterator[RunningNode]:
    """A node that sells on this chain, to the account of GATEWAY_KEY among others."""
    model = {"id": MODEL, "path": folder / "model", "price": PRICE, "capacity": 2}
    settings = await paid_settings(
        folder,
        listen=f"{scheme}://127.0.0.1:0",
        models=[model],
        payments={"redeem_gas": 21_000},
        **overrides,
    )
    contracts = devnet.contracts
    network_file(
        folder,
        devnet.chain.url,
        chain_id=CHAIN_ID,
        controller=contracts.controller,
        ai_service_registry=contracts.addresses["AIServiceRegistry"],
    )
    for account in (NODE, GATEWAY):
        await devnet.rpc("anvil_setBalance", account.address, hex(100 * ETHER))
    await contracts.fund_sender(GATEWAY, Wei(10 * ETHER), Wei(10 * ETHER))
    await contracts.register_orchestrator(NODE, Wei(100 * ETHER), "https://127.0.0.1:8936")
    await devnet.next_round()
    engine = engine or FakeEngine()
    async with open_node(settings, engine_opener=engine.opener) as node, PayingBuyer(node) as one:

        async def is_quoted() -> bool:
            return await one.refusal() == ""

        await eventually(is_quoted, 30)
        yield node


@asynccontextmanager
async def signer_for(devnet: Devnet, folder: Path, *flags: str) -> AsyncIterator[Witness]:
    """`limner-gateway signer` with the account of GATEWAY_KEY, and a witness before it."""
    operator = await operator_on(devnet, folder, GATEWAY)
    async with serving(operator, *flags) as program, witnessed(program.ready.url) as witness:
        yield witness


async def test_it_finds_a_real_node_over_tls_and_gets_images_of_the_built_in_model(
    sdk: Sdk, one_node: LocalNetwork
) -> None:
    url = one_node.nodes[0].url
    assert url.startswith("https://")
    body = SMALL | {"width": 128, "height": 64, "num_images_per_prompt": 2, "seed": 41}
    found = await sdk.select(orchestrators=url, app=f"text-to-image/{SHAPES}", body=body)
    assert [image["seed"] for image in found["images"]] == [41, 42]
    assert [image["size"] for image in found["images"]] == [[128, 64]] * 2
    assert found["price_info"] is None
    assert found["runner_url"].startswith(f"{url}/apps/")


async def test_it_reads_a_nodes_terms_over_grpc_and_tls(sdk: Sdk, one_node: LocalNetwork) -> None:
    url = one_node.nodes[0].url
    told = await sdk.ask("info", url=url, model=SHAPES)
    assert told["transcoder"] == url
    assert told["models"] == [SHAPES]
    assert told["price"] == [2400000, 1]
    assert told["recipient"] == ""


async def test_it_calls_a_node_in_clear_text_at_any_path(sdk: Sdk, tmp_path: Path) -> None:
    async with running_node(tmp_path) as node:
        found = await sdk.select(orchestrators=[node.url], app=APP, body=SMALL)
        assert found["images"][0]["size"] == [64, 64]
        for tail in ("/proxy", "/v1/images/generations"):
            told = await sdk.ask("call", runner_url=found["runner_url"] + tail, payload=SMALL)
            assert told["images"][0]["size"] == [64, 64]


async def test_it_passes_over_a_node_whose_model_failed_and_tells_why_nobody_is_left(
    sdk: Sdk, tmp_path: Path
) -> None:
    broken = FakeEngine()
    broken.states[MODEL] = ModelState(MODEL, "failed")
    async with (
        running_node(tmp_path / "a", broken) as first,
        running_node(tmp_path / "b") as second,
    ):
        found = await sdk.select(orchestrators=[first.url, second.url], app=APP, body=SMALL)
        assert found["runner_url"].startswith(second.url)
        there = found["runner_url"].replace(second.url, first.url)
        told = await sdk.ask("call", runner_url=there, payload=SMALL)
        assert told["status"] == 503
        assert "no capacity available for runner: model_failed" in told["message"]


async def test_it_raises_our_reason_for_a_request_that_is_wrong(sdk: Sdk, tmp_path: Path) -> None:
    async with running_node(tmp_path) as node:
        found = await sdk.select(orchestrators=[node.url], app=APP, body=SMALL)
        told = await sdk.ask(
            "call", runner_url=found["runner_url"], payload=SMALL | {"width": 100_000}
        )
        assert (told["error"], told["status"]) == ("LivepeerHTTPError", 422)
        assert "width: Input should be less than or equal to 1024" in told["message"]


async def test_it_pays_over_tls_and_shows_itself_as_the_signers_account(
    sdk: Sdk, devnet: Devnet, tmp_path: Path
) -> None:
    engine = FakeEngine()
    async with AsyncExitStack() as stack:
        node = await stack.enter_async_context(
            node_on(devnet, tmp_path / "node", engine, scheme="https")
        )
        without = await sdk.ask("select", orchestrators=node.url, app=APP, body=SMALL)
        assert without["error"] == "NoRunnerAvailableError"
        assert "paid call requires signer_url" in without["message"]
        assert not engine.jobs

        signer = await stack.enter_async_context(signer_for(devnet, tmp_path / "signer"))
        found = await sdk.select(
            orchestrators=node.url, app=APP, body=SMALL, signer_url=signer.url
        )
        assert found["images"][0]["size"] == [64, 64]
        paid = signer.payments[found["session"]]
        assert paid.price == fee(pixels_of(64, 64, 1), parse_price(PRICE))
        assert paid.payment.sender == GATEWAY_KEY.address
        assert len(engine.jobs) == 1

        told = await sdk.ask("info", url=node.url, model=MODEL, signer=signer.url)
        assert told["recipient"] == NODE_KEY.address.hex()
        assert told["price"] == [7199999, 3]


async def test_it_finds_a_node_through_the_signer_alone(
    sdk: Sdk, devnet: Devnet, tmp_path: Path
) -> None:
    """Signers verify certificates where they read lists of apps, so this node has none."""
    async with (
        node_on(devnet, tmp_path / "node", scheme="http") as node,
        signer_for(devnet, tmp_path / "signer", "--orchestrator", node.url) as signer,
    ):

        async def is_found() -> bool:
            told = await sdk.ask("select", signer_url=signer.url, app=APP, body=SMALL)
            return "error" not in told

        await eventually(is_found, 30)
        assert len(signer.payments) == 1


@pytest.mark.timeout(120 + REQUESTS)
async def test_what_is_advertised_quoted_paid_and_receipted_agrees_to_the_wei(
    sdk: Sdk, devnet: Devnet, tmp_path: Path
) -> None:
    """Advertised ceiling >= quote == paid == receipt, for every one of random requests."""
    dice = random.Random(os.environ.get("LIMNER_APP_SEED", "7"))  # noqa: S311  sizes, not secrets
    folder = tmp_path / "node"
    total = Fraction(0)
    async with (
        node_on(devnet, folder, scheme="https") as node,
        signer_for(devnet, tmp_path / "signer") as signer,
        Buyer(node) as auditor,
    ):
        for _ in range(REQUESTS):
            fields = _fields(dice)
            named = {PAYER_ADDRESS: checksum(GATEWAY_KEY.address)}
            quote = Terms.of(await call(auditor, named, **fields)).fee
            found = await sdk.select(
                orchestrators=node.url,
                app=APP,
                body={"prompt": "x", "num_inference_steps": 1, **fields},
                signer_url=signer.url,
            )
            sizes = [image["size"] for image in found["images"]]
            count = fields["num_images_per_prompt"]
            assert sizes == [[fields["width"], fields["height"]]] * count
            pixels = pixels_of(fields["width"], fields["height"], count)
            assert quote == fee(pixels, parse_price(PRICE)), fields
            assert found["price_info"]["price"] >= quote
            paid = signer.payments[found["session"]]
            assert paid.price == quote
            assert 1 <= len(paid.payment.tickets) <= 4
            assert quote <= paid.value < quote + 10
            receipt = (await auditor.get(f"/jobs/{found['session']}/receipt")).json
            assert receipt["state"] == "delivered"
            assert receipt["charged"] == str(quote)
            assert Fraction(receipt["credited"]) == paid.value
            total += quote
    assert len(signer.payments) == REQUESTS
    await _check_books(folder, signer, total)


def _fields(dice: random.Random) -> dict[str, Any]:
    most = 1024 if dice.random() < 0.1 else 256
    return {
        "width": dice.randrange(64, most + 1, 8),
        "height": dice.randrange(64, most + 1, 8),
        "num_images_per_prompt": dice.randint(1, 4),
    }


async def _check_books(folder: Path, signer: Witness, total: Fraction) -> None:
    """The node's journal has just what the signer gave away, and charged just what was quoted."""
    tickets = sum(len(paid.payment.tickets) for paid in signer.payments.values())
    rows = await in_books(folder, lambda c: c.execute(select(payments)).all())
    assert {row.attempt_id for row in rows} == signer.payments.keys()
    assert sum(row.tickets for row in rows) == tickets
    values = sum((paid.value for paid in signer.payments.values()), Fraction(0))
    assert sum((Fraction(row.credit) for row in rows), Fraction(0)) == values
    charges = await in_books(folder, lambda c: list(c.scalars(select(ends.c.charged))))
    assert sum(charges) == total
    count = await in_books(folder, lambda c: c.scalar(select(func.count()).select_from(ends)))
    assert count == REQUESTS
