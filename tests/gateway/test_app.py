"""The whole gateway in one process, with an orchestrator on real sockets."""

import asyncio
import ssl
import stat
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from ipaddress import IPv4Address
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from gateway.app import (
    Gateway,
    _bounds,
    open_gateway,
    probe_orchestrators,
)
from gateway.config import GatewaySettings
from gateway.home import open_gateway_database
from gateway.keys import create_key
from network.errors import ConfigError, ProblemError
from network.runtime import certificates
from network.runtime.clock import SystemClock
from tests.gateway.identity import make_cheap_identity
from tests.gateway.stub_orchestrator import StubOrchestrator, running
from tests.gateway.waiting import until, until_async

BODY = {"prompt": "a boat", "width": 64, "height": 64, "num_inference_steps": 5, "seed": 7}


def settings_for(folder: Path, *uris: str, **others: object) -> GatewaySettings:
    return GatewaySettings.model_validate(
        {
            "listen": "127.0.0.1:0",
            "admin_listen": "127.0.0.1:0",
            "data_dir": folder / "data",
            "default_model": "m",
            "orchestrators": [{"uri": uri} for uri in uris],
            "routing": {"refresh_seconds": 0.3, "max_wait_seconds": 1},
            "server": {"shutdown_seconds": 0.3},
            **others,
        }
    )


@dataclass
class Stage:
    gateway: Gateway
    client: aiohttp.ClientSession
    key: str

    async def post(self, **fields: object) -> aiohttp.ClientResponse:
        async with self.client.post(
            f"{self.gateway.url}/text-to-image",
            json={**BODY, **fields},
            headers={"Authorization": f"Bearer {self.key}"},
        ) as response:
            await response.read()
            return response

    async def status(self) -> dict[str, Any]:
        async with self.client.get(f"{self.gateway.admin_url}/status") as response:
            found: dict[str, Any] = await response.json()
            return found

    async def is_idle(self) -> bool:
        return bool((await self.status())["in_flight"] == 0)


@asynccontextmanager
async def serving(settings: GatewaySettings) -> AsyncIterator[Stage]:
    if not settings.payments.signer_url:
        await make_cheap_identity(settings.data_dir)
    async with open_gateway_database(settings) as database:
        _, key = await create_key(database, SystemClock(), name="test")
    async with (
        open_gateway(settings, SystemClock()) as gateway,
        aiohttp.ClientSession() as client,
    ):
        yield Stage(gateway, client, key)


@pytest.fixture
async def orchestrator() -> AsyncIterator[StubOrchestrator]:
    async with running(StubOrchestrator()) as stub:
        yield stub


async def test_a_request_goes_the_whole_way_and_is_accounted_for(
    orchestrator: StubOrchestrator, tmp_path: Path
) -> None:
    async with serving(settings_for(tmp_path, orchestrator.uri)) as stage:
        response = await stage.post(num_images_per_prompt=2)
        assert response.status == 200, await response.text()
        images = (await response.json())["images"]
        assert [image["seed"] for image in images] == [7, 8]
        async with stage.client.get(images[1]["url"]) as picture:
            assert (await picture.read()).startswith(b"\x89PNG")
        assert response.headers["Limner-Fee"] == str(64 * 64 * 2)
        assert response.headers["X-Limner-Orchestrator"] == orchestrator.uri
        status = await stage.status()
    assert status["spent_wei"] == str(64 * 64 * 2)
    assert status["serving"] is True
    assert status["images"]["count"] == 2
    assert status["orchestrators"][0]["models"] == [
        {"id": "m", "warm": True, "free": 2, "price": "1"}
    ]
    assert orchestrator.delivered == 1


async def test_an_unknown_model_is_named_with_those_there_are(
    orchestrator: StubOrchestrator, tmp_path: Path
) -> None:
    async with serving(settings_for(tmp_path, orchestrator.uri)) as stage:
        response = await stage.post(model_id="nobody/has-this")
        said = (await response.json())["error"]
    assert (response.status, said["code"]) == (404, "model_not_found")
    assert "Available: m" in said["message"]


async def test_without_orchestrators_the_gateway_serves_and_says_so(tmp_path: Path) -> None:
    async with serving(settings_for(tmp_path)) as stage:
        response = await stage.post()
        assert response.status == 503
        assert "Retry-After" in response.headers
        assert (await stage.status())["serving"] is False
        async with stage.client.get(f"{stage.gateway.admin_url}/healthz") as health:
            assert await health.json() == {"status": "DEGRADED"}


async def test_hanging_up_reaches_the_orchestrator(
    orchestrator: StubOrchestrator, tmp_path: Path
) -> None:
    orchestrator.job_seconds = 30
    async with serving(settings_for(tmp_path, orchestrator.uri)) as stage:
        request = asyncio.ensure_future(stage.post())
        await until(lambda: orchestrator.under_way == 1)
        request.cancel()
        await until(lambda: orchestrator.under_way == 0)
        assert orchestrator.cancelled == 1
        await until_async(stage.is_idle)


async def test_progress_comes_from_the_orchestrator(
    orchestrator: StubOrchestrator, tmp_path: Path
) -> None:
    orchestrator.job_seconds = 1
    async with serving(settings_for(tmp_path, orchestrator.uri)) as stage:
        headers = {"Authorization": f"Bearer {stage.key}", "X-Request-Id": "0123456789abcdef"}
        request = stage.client.post(
            f"{stage.gateway.url}/text-to-image", json=BODY, headers=headers
        )
        answer = asyncio.ensure_future(request)
        await until(lambda: len(orchestrator.seen) == 1)
        orchestrator.progress[orchestrator.seen[0].attempt_id] = 3
        async with stage.client.get(
            f"{stage.gateway.url}/jobs/0123456789abcdef", headers=headers
        ) as response:
            job = await response.json()
        assert (job["state"], job["done_steps"], job["total_steps"]) == ("running", 3, 5)
        async with await answer as response:
            assert response.status == 200


async def test_stopping_takes_no_longer_than_it_is_given(
    orchestrator: StubOrchestrator, tmp_path: Path
) -> None:
    orchestrator.job_seconds = 60
    loop = asyncio.get_running_loop()
    async with serving(settings_for(tmp_path, orchestrator.uri)) as stage:
        request = asyncio.ensure_future(stage.post())
        await until(lambda: orchestrator.under_way == 1)
        began = loop.time()
    assert loop.time() - began < 3
    assert isinstance(await _failure(request), aiohttp.ClientError | asyncio.CancelledError)


async def test_64_clients_against_two_places_are_all_answered(
    orchestrator: StubOrchestrator, tmp_path: Path
) -> None:
    orchestrator.job_seconds = 0.05
    async with serving(settings_for(tmp_path, orchestrator.uri)) as stage:
        answers = await asyncio.gather(*(stage.post() for _ in range(64)))
    statuses = {answer.status for answer in answers}
    assert 200 in statuses
    assert statuses <= {200, 503}
    assert all("Retry-After" in answer.headers for answer in answers if answer.status == 503)
    assert orchestrator.most_under_way <= 2


async def test_the_data_directory_is_the_operators_alone(tmp_path: Path) -> None:
    async with serving(settings_for(tmp_path)):
        pass
    open_to_others = [name for name, mode in modes_below(tmp_path / "data") if mode & 0o077]
    assert open_to_others == []


def modes_below(folder: Path) -> list[tuple[str, int]]:
    return [
        (str(path), stat.S_IMODE(path.stat().st_mode)) for path in (folder, *folder.rglob("*"))
    ]


async def test_an_identity_is_made_at_the_first_start_and_stays(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir(0o700)
    async with serving(settings_for(tmp_path)) as stage:
        first = stage.gateway.address
    async with serving(settings_for(tmp_path)) as stage:
        assert stage.gateway.address == first


async def test_an_address_in_use_is_named(tmp_path: Path) -> None:
    async with serving(settings_for(tmp_path)) as stage:
        taken = stage.gateway.url.removeprefix("http://")
        with pytest.raises(ConfigError, match="listen: cannot listen on"):
            async with open_gateway(
                settings_for(tmp_path / "second", listen=taken), SystemClock()
            ):
                pass


def self_signed(folder: Path) -> tuple[Path, Path]:
    """A certificate for 127.0.0.1 and its key, as PEM files."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "test")])
    now = datetime.now(UTC)
    certificate = (
        x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(
            x509.SubjectAlternativeName([x509.IPAddress(IPv4Address("127.0.0.1"))]), critical=False
        )
        .sign(key, hashes.SHA256())
    )
    files = folder / "cert.pem", folder / "key.pem"
    files[0].write_bytes(certificate.public_bytes(Encoding.PEM))
    files[1].write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    return files


async def test_with_a_certificate_the_gateway_speaks_https(
    orchestrator: StubOrchestrator, tmp_path: Path
) -> None:
    certificate, key = self_signed(tmp_path)
    tls = {"certificate": certificate, "key": key}
    trust = ssl.create_default_context(cafile=str(certificate))
    async with serving(settings_for(tmp_path, orchestrator.uri, tls=tls)) as stage:
        assert stage.gateway.url.startswith("https://127.0.0.1:")
        async with stage.client.post(
            f"{stage.gateway.url}/text-to-image",
            json=BODY,
            headers={"Authorization": f"Bearer {stage.key}"},
            ssl=trust,
        ) as response:
            url = (await response.json())["images"][0]["url"]
        assert url.startswith(f"{stage.gateway.url}/stream/")
        async with stage.client.get(url, ssl=trust) as response:
            assert response.status == 200


async def test_a_renewed_certificate_is_served_without_a_restart(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(certificates, "CHECK_SECONDS", 0.02)
    certificate, key = self_signed(tmp_path)
    tls = {"certificate": certificate, "key": key}
    async with serving(settings_for(tmp_path, tls=tls)) as stage:
        self_signed(tmp_path)
        trust = ssl.create_default_context(cafile=str(certificate))
        # Only the new one is trusted.
        async with asyncio.timeout(30):
            while True:
                try:
                    async with stage.client.get(f"{stage.gateway.url}/health", ssl=trust):
                        break
                except aiohttp.ClientConnectorCertificateError:
                    await asyncio.sleep(0.02)
        async with stage.client.get(f"{stage.gateway.admin_url}/status") as response:
            assert (await response.json())["certificate"]["problem"] == ""


async def test_a_certificate_that_cannot_be_used_is_named(tmp_path: Path) -> None:
    tls = {"certificate": tmp_path / "no.pem", "key": tmp_path / "no.key"}
    with pytest.raises(ConfigError, match=r"tls: cannot read .*no\.pem"):
        async with serving(settings_for(tmp_path, tls=tls)):
            pass


async def test_a_probe_asks_without_a_gateway(
    orchestrator: StubOrchestrator, tmp_path: Path
) -> None:
    lines = await probe_orchestrators(
        settings_for(tmp_path, orchestrator.uri, "http://127.0.0.1:1")
    )
    assert [line["state"] for line in sorted(lines, key=lambda line: line["state"])] == [
        "ready",
        "unreachable",
    ]


def test_the_gateway_needs_no_torch() -> None:
    program = (
        "import sys\n"
        "for name in ('torch', 'diffusers', 'transformers', 'PIL', 'numpy'):\n"
        "    sys.modules[name] = None\n"
        "import gateway.__main__, gateway.app\n"
        "from gateway.cli import run, keys, usage, orchestrators, generate, version\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr


async def _failure(request: asyncio.Future[Any]) -> BaseException | None:
    try:
        await request
    except BaseException as error:  # noqa: BLE001 - the failure is what is asked for
        return error
    return None


def test_a_size_that_the_built_in_model_cannot_draw_is_refused_without_any_configuration() -> None:
    bounds = _bounds(GatewaySettings())
    assert bounds.parse(b'{"prompt": "a ring", "width": 128}').width == 128
    with pytest.raises(ProblemError, match="multiple of 32; the nearest are 96 and 128"):
        bounds.parse(b'{"prompt": "a ring", "width": 120}')
    assert bounds.parse(b'{"prompt": "a ring", "model_id": "other", "width": 120}').width == 120


async def test_the_page_knows_what_models_cost_and_can_be_switched_off(
    orchestrator: StubOrchestrator, tmp_path: Path
) -> None:
    async with serving(settings_for(tmp_path / "on", orchestrator.uri)) as stage:
        async with stage.client.get(f"{stage.gateway.url}/") as page:
            assert page.status == 200
        bearer = {"Authorization": f"Bearer {stage.key}"}
        async with stage.client.get(f"{stage.gateway.url}/v1/models", headers=bearer) as told:
            (model,) = (await told.json())["data"]
        assert (model["id"], model["limner"]["wei_per_pixel"]) == ("m", "1")
        assert (model["limner"]["available"], model["limner"]["default"]) == (True, True)
        await stage.post()
        async with stage.client.get(f"{stage.gateway.url}/key", headers=bearer) as own:
            assert (await own.json())["spent_today_wei"] == str(64 * 64)
    off = settings_for(tmp_path / "off", orchestrator.uri, page=False)
    async with serving(off) as stage, stage.client.get(f"{stage.gateway.url}/") as page:
        assert page.status == 404
