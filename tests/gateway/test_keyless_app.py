"""The whole gateway without a key: a signer in a process of its own pays, on a chain."""

import asyncio
import math
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path
from urllib.parse import urlsplit

import orjson
import pytest
from aiohttp import ClientSession, web
from structlog.testing import capture_logs

from gateway.accounting.payments import PaymentState
from gateway.config import GatewaySettings
from gateway.home import open_gateway_database, open_identity, open_payer, open_usage_journal
from network.errors import ConfigError
from network.identity import KeySigner, verify_session_request
from network.runtime.clock import SystemClock
from network.units import Address
from network.wire.codec import decode_orchestrator_info
from network.wire.headers import decode_header, verify_segment
from network.wire.tickets import decode_ticket_params
from scripts.local_network.processes import Program
from tests.devnet import Devnet
from tests.gateway.signer.operator import Operator, operator_on
from tests.gateway.signer.test_remote_signer import serving as answering
from tests.gateway.signer.test_signer_process import serving as signing
from tests.gateway.stub_orchestrator import StubModel, StubOrchestrator, running
from tests.gateway.stub_till import StubTill
from tests.gateway.test_app import Stage, serving, settings_for
from tests.gateway.test_paid_app import head_of, seen_by

TOKEN = "gateway-1-token"
FEE = 64 * 64


@dataclass
class Gatekeeper:
    """The webhook of the signer's operator: it knows one token."""

    token: str = TOKEN
    url: str = ""

    async def decide(self, request: web.Request) -> web.Response:
        headers = orjson.loads(await request.read())["headers"]
        if headers.get("Authorization") == [f"Bearer {self.token}"]:
            return web.json_response({"status": 200, "auth_id": "gateway-1"})
        return web.json_response({"status": 401, "reason": "no such token"})


@asynccontextmanager
async def guarding() -> AsyncIterator[Gatekeeper]:
    gatekeeper = Gatekeeper()
    async with answering("/authorize", gatekeeper.decide) as url:
        gatekeeper.url = f"{url}/authorize"
        yield gatekeeper


@dataclass
class Market:
    """A signer's host with its account, and an orchestrator that checks what it is paid with."""

    operator: Operator
    stub: StubOrchestrator
    till: StubTill
    folder: Path
    #: Of the signer's account.
    account: Address = field(init=False)

    def __post_init__(self) -> None:
        self.account = Address(bytes.fromhex(self.operator.account.address[2:]))

    def settings(self, url: str, token: str = TOKEN) -> GatewaySettings:
        return settings_for(
            self.folder / "gateway",
            self.stub.uri,
            chain={"network": str(self.operator.folder / "network.json"), "poll_seconds": 0.1},
            payments={"signer_url": url, "signer_token": token},
        )


@pytest.fixture
async def market(devnet: Devnet, tmp_path: Path) -> AsyncIterator[Market]:
    orchestrator = await devnet.orchestrator()
    sender = await devnet.sender()
    await devnet.next_round()
    folder = tmp_path / "signer"
    folder.mkdir()
    operator = await operator_on(devnet, folder, sender)
    chain = seen_by(await head_of(folder / "network.json"))
    till = StubTill(chain, key=KeySigner(bytes(orchestrator.key)))
    models = {"m": StubModel(), "gratis": StubModel(price=Fraction(0))}
    async with running(StubOrchestrator(models=models, till=till)) as stub:
        yield Market(operator, stub, till, tmp_path)


async def refused(stage: Stage, **fields: object) -> tuple[int, str]:
    response = await stage.post(**fields)
    return response.status, (await response.json())["error"]["code"]


async def booked(settings: GatewaySettings) -> PaymentState:
    """What a next process would go on with."""
    async with (
        open_gateway_database(settings) as database,
        open_usage_journal(settings, database) as journal,
    ):
        return await journal.payment_state(SystemClock().now())


def port_of(program: Program) -> int:
    port = urlsplit(program.ready.url).port
    assert port is not None
    return port


async def test_a_gateway_without_a_key_pays_through_its_signer(market: Market) -> None:
    stub, till, account = market.stub, market.till, market.account
    async with (
        guarding() as gatekeeper,
        signing(market.operator, "--webhook-url", gatekeeper.url) as program,
    ):
        settings = market.settings(program.ready.url)
        async with serving(settings) as stage:
            assert stage.gateway.address == market.operator.account.address
            answers = [await stage.post() for _ in range(3)]
            assert [answer.status for answer in answers] == [200, 200, 200]
            image = (await answers[-1].json())["images"][0]
            async with stage.client.get(image["url"]) as picture:
                assert (await picture.read()).startswith(b"\x89PNG")
            payments = (await stage.status())["payments"]
            assert payments["deposit_wei"] == str(10**18)
            # Free work wants credentials, which the signer gives to payments only.
            status, _ = await refused(stage, model_id="gratis")
            assert status != 200
        books = await booked(settings)
        environment = {
            "LIMNER_GATEWAY__DATA_DIR": str(settings.data_dir),
            "LIMNER_GATEWAY__PAYMENTS__SIGNER_URL": program.ready.url,
            "LIMNER_GATEWAY__PAYMENTS__SIGNER_TOKEN": TOKEN,
        }
        said = await market.operator.run("address", **environment)
        assert said.out == f"{market.operator.account.address}\n"
        said = await market.operator.run("wallet", **environment)
        assert (said.status, said.out) == (2, "")
        assert "payments.signer_url" in said.err

    # Tickets of 3000 wei for three times 4096: what is left over of each payment goes into the next.
    assert [len(seen.payment.tickets) for seen in stub.seen] == [2, 1, 2]
    for seen in stub.seen:
        assert seen.payment.sender == account
        verify_segment(seen.credentials, account)
        assert seen.credentials.auth_token is not None
    for request in stub.requests:
        verify_session_request(account, request.signature)
        assert request.address == account
    left = till.balance(account, "m")
    assert payments["credit_wei"] == str(math.floor(left))
    assert list(books.available.values()) == [left]
    assert not books.in_doubt

    files = [file.name for file in (market.folder / "gateway").rglob("*") if file.is_file()]
    assert "gateway.sqlite3" in files
    assert not [name for name in files if "keystore" in name]


async def test_a_signer_that_is_down_costs_nothing_and_is_used_again_when_it_is_back(
    market: Market,
) -> None:
    async with signing(market.operator) as program:
        port = port_of(program)
        settings = market.settings(program.ready.url)
        async with serving(settings) as stage:
            assert (await stage.post()).status == 200
            before = (await stage.status())["payments"]
            await asyncio.to_thread(program.stop)
            with capture_logs() as logs:
                assert await refused(stage) == (503, "payments_unavailable")
            told = [line for line in logs if line["event"] == "cannot_pay"]
            assert len(told) == 1
            assert "the signer does not answer" in told[0]["reason"]
            assert TOKEN not in str(logs)
            assert (await stage.status())["payments"] == before
            assert await stage.is_idle()
            assert len(market.stub.seen) == 1
            async with signing(market.operator, "--listen", f"127.0.0.1:{port}"):
                assert (await stage.post()).status == 200
        books = await booked(settings)
    assert not books.in_doubt
    assert list(books.available.values()) == [market.till.balance(market.account, "m")]


async def test_a_quote_too_old_for_the_signer_is_asked_for_anew(market: Market) -> None:
    """Status 480: the job goes to the same orchestrator, on a quote that the signer has not refused."""
    refusals = [480]
    hashes: list[bytes] = []

    async def sign(request: web.Request) -> web.Response:
        body = await request.read()
        if request.path == "/generate-live-payment":
            info = decode_orchestrator_info(decode_header(orjson.loads(body)["orchestrator"]))
            assert info.ticket_params is not None
            hashes.append(decode_ticket_params(info.ticket_params).recipient_rand_hash)
            if refusals:
                answer = {"error": {"message": "the quote is of another round"}}
                return web.json_response(answer, status=refusals.pop())
        async with session.post(program.ready.url + request.path, data=body) as response:
            return web.Response(body=await response.read(), status=response.status)

    async with (
        signing(market.operator) as program,
        ClientSession() as session,
        answering("/{path:.*}", sign) as url,
        serving(market.settings(url)) as stage,
    ):
        assert (await stage.post()).status == 200
    assert not refusals
    assert len(hashes) == len(set(hashes)) == 2
    assert len(market.stub.seen) == 1


async def test_a_wrong_token_ends_the_start_and_one_that_is_withdrawn_the_paying(
    market: Market,
) -> None:
    async with (
        guarding() as gatekeeper,
        signing(market.operator, "--webhook-url", gatekeeper.url) as program,
    ):
        with pytest.raises(ConfigError) as wrong:
            async with serving(market.settings(program.ready.url, "gateway-2-token")):
                pass
        assert program.ready.url in str(wrong.value)
        assert "401: no such token" in str(wrong.value)
        assert "gateway-2-token" not in str(wrong.value)
        async with serving(market.settings(program.ready.url)) as stage:
            gatekeeper.token = "another"
            with capture_logs() as logs:
                assert await refused(stage) == (503, "payments_unavailable")
            assert "401: no such token" in str(logs)
            assert not market.stub.seen
            assert (await stage.status())["payments"]["outstanding_wei"] == "0"


async def test_without_its_signer_a_gateway_does_not_start(market: Market) -> None:
    settings = market.settings("http://127.0.0.1:9")
    with pytest.raises(ConfigError, match=r"payments\.signer_url.*http://127\.0\.0\.1:9.*answer"):
        async with serving(settings):
            pass


@pytest.mark.parametrize(
    ("network", "url", "token", "setting"),
    [
        ("offchain", "https://signer:8938", "", "payments.signer_url"),
        ("arbitrum-one", "https://me:hush@signer:8938", "", "payments.signer_url"),
        ("arbitrum-one", "https://signer:8938/?key=hush", "", "payments.signer_url"),
        ("arbitrum-one", "https://signer:8938", "hush\nX-Admin: 1", "payments.signer_token"),
        ("arbitrum-one", "https://signer:8938", "hush hush", "payments.signer_token"),
    ],
)
async def test_a_signer_that_could_not_be_used_is_refused_without_its_secrets(
    network: str, url: str, token: str, setting: str, tmp_path: Path
) -> None:
    payments = {"signer_url": url, "signer_token": token}
    settings = settings_for(tmp_path, chain={"network": network}, payments=payments)
    assert not token or token not in repr(settings)
    with pytest.raises(ConfigError) as error:
        async with open_payer(settings, "0.9.1"):
            pass
    assert str(error.value).startswith(setting)
    assert "hush" not in str(error.value)
    assert not settings.data_dir.exists()


async def test_commands_that_need_the_key_make_none_beside_a_signer(tmp_path: Path) -> None:
    """An account made here would take deposits that the account which pays never sees."""
    settings = settings_for(
        tmp_path, chain={"network": "arbitrum-one"}, payments={"signer_url": "http://signer:1"}
    )
    with pytest.raises(ConfigError, match="at its signer"):
        await open_identity(settings)
    assert not settings.data_dir.exists()
