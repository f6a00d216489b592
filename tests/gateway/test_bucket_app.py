"""The whole gateway with its images in a bucket of a real S3 server."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

from gateway.config import GatewaySettings
from network.errors import ConfigError
from tests.gateway.storage.s3_server import Gate, gate_to, make_bucket
from tests.gateway.storage.test_contract import s3_port
from tests.gateway.stored_images import segments
from tests.gateway.stub_orchestrator import StubOrchestrator, running
from tests.gateway.test_app import Stage, serving, settings_for

__all__ = ["s3_port"]

_KEYS = {"access_key_id": "key", "secret_access_key": "secret"}


@pytest.fixture
async def gate(s3_port: int, tmp_path: Path) -> AsyncIterator[Gate]:
    await asyncio.to_thread(make_bucket, s3_port, bucket_of(tmp_path))
    async with gate_to(s3_port) as opened:
        yield opened


def bucket_of(folder: Path) -> str:
    return folder.name.replace("_", "-").lower().strip("-")


def settings_with(gate: Gate, folder: Path, *uris: str, **images: object) -> GatewaySettings:
    store = f"s3://{bucket_of(folder)}/images?endpoint={gate.url}"
    return settings_for(folder, *uris, images={"store": store, **_KEYS, **images})


async def first_image(stage: Stage) -> str:
    response = await stage.post()
    assert response.status == 200, await response.text()
    told: dict[str, Any] = await response.json()
    url: str = told["images"][0]["url"]
    return url


async def test_images_are_kept_in_the_bucket_and_served_across_a_restart(
    gate: Gate, tmp_path: Path
) -> None:
    async with running(StubOrchestrator()) as orchestrator:
        settings = settings_with(gate, tmp_path, orchestrator.uri)
        async with serving(settings) as stage:
            url = await first_image(stage)
            assert url.startswith(f"{stage.gateway.url}/stream/")
            before = stage.gateway.url
        assert not segments(tmp_path)
        async with serving(settings) as stage:
            again = url.replace(before, stage.gateway.url)
            async with stage.client.get(again, headers={"Range": "bytes=1-3"}) as part:
                assert (part.status, await part.read()) == (206, b"PNG")
                assert part.headers["Content-Type"] == "image/png"
            assert (await stage.status())["images"]["count"] == 1


async def test_signed_urls_lead_to_the_bucket(gate: Gate, tmp_path: Path) -> None:
    async with running(StubOrchestrator()) as orchestrator:
        settings = settings_with(gate, tmp_path, orchestrator.uri, urls="presigned")
        async with serving(settings) as stage:
            url = await first_image(stage)
            assert url.startswith(f"{gate.url}/")
            async with stage.client.get(url) as picture:
                file = await picture.read()
                assert file.startswith(b"\x89PNG")
            # The page, which may load nothing from elsewhere, gets it from the gateway.
            names = "/".join(urlsplit(url).path.split("/")[-2:])
            async with stage.client.get(f"{stage.gateway.url}/stream/{names}") as picture:
                assert await picture.read() == file


async def test_while_the_bucket_is_away_images_come_all_the_same(
    gate: Gate, tmp_path: Path
) -> None:
    async with running(StubOrchestrator()) as orchestrator:
        settings = settings_with(gate, tmp_path, orchestrator.uri, urls="presigned")
        async with serving(settings) as stage:
            gate.shut()
            assert (await first_image(stage)).startswith("data:image/png;base64,iVBORw0K")
            gate.is_open = True
            assert (await first_image(stage)).startswith(gate.url)


async def test_a_bucket_that_refuses_us_is_a_wrong_setting(gate: Gate, tmp_path: Path) -> None:
    settings = settings_for(
        tmp_path, images={"store": f"s3://nobodys-bucket?endpoint={gate.url}", **_KEYS}
    )
    with pytest.raises(ConfigError, match=r"images\.store: .*NoSuchBucket"):
        async with serving(settings):
            pass


@pytest.mark.parametrize(
    ("images", "why"),
    [
        ({"store": "https://bucket"}, "s3://bucket/prefix"),
        ({"store": "s3://bucket", "access_key_id": "key"}, "go together"),
        ({"urls": "presigned"}, "for a store that is a bucket"),
        ({"store": "s3://b", "urls": "presigned", "lifetime_seconds": 700_000}, "at most 604800"),
    ],
)
def test_settings_that_do_not_fit_are_told(
    tmp_path: Path, images: dict[str, object], why: str
) -> None:
    with pytest.raises(ValueError, match=why):
        settings_for(tmp_path, images=images)
