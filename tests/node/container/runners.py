"""Runners on real sockets with the tests' engine, and a client that reads whole answers."""

import asyncio
import json
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp

from node.config.settings import NodeSettings
from node.container.app import RunningContainer, open_container
from tests.node.fakes import MODEL, FakeEngine
from tests.node.nodes import SMALL, Answer

#: What go-livepeer's worker can read; it panics at any other status.
SURVIVED = {200, 400, 401, 422, 500}
TOKEN = "a-token-for-tests"


def settings_of(folder: Path, **overrides: Any) -> NodeSettings:
    """Settings of a runner of one model, on a free port, with its files in `folder`."""
    model = folder / "model"
    if not model.exists():
        model.mkdir(parents=True)
        (model / "model_index.json").write_text("{}")
    container = {"listen": "127.0.0.1:0", **overrides.pop("container", {})}
    values: dict[str, Any] = {
        "data_dir": folder / "data",
        "models": [{"id": MODEL, "path": model, "capacity": 2}],
        "server": {"shutdown_seconds": 0.2},
        "safety": {"checker": "none"},
        "container": container,
    }
    return NodeSettings.model_validate({**values, **overrides})


class Caller:
    """An HTTP client of one runner."""

    def __init__(self, url: str, http: aiohttp.ClientSession, token: str = "") -> None:
        self.url = url
        self.http = http
        self._headers = {"Authorization": f"Bearer {token}"} if token else {}

    async def ask(self, headers: Mapping[str, str] | None = None, **fields: Any) -> Answer:
        """POST /text-to-image for a small image; a field given as ... is left out."""
        body = {"prompt": "a red circle", "model_id": MODEL, **SMALL, **fields}
        body = {name: value for name, value in body.items() if value is not ...}
        return await self.post(json.dumps(body).encode(), headers)

    async def post(
        self, body: bytes, headers: Mapping[str, str] | None = None, path: str = "/text-to-image"
    ) -> Answer:
        """POST these bytes; holds the answer to what go-livepeer's worker survives."""
        sent = {"Content-Type": "application/json", **self._headers, **(headers or {})}
        async with self.http.post(self.url + path, data=body, headers=sent) as answer:
            found = Answer(answer.status, answer.headers, await answer.read())
        if path.rstrip("/") == "/text-to-image":
            assert found.status in SURVIVED, (found.status, found.body[:300])
            assert "json" in found.headers["Content-Type"]
            assert isinstance(found.json, dict)
        return found

    async def get(
        self, path: str, headers: Mapping[str, str] | None = None, method: str = "GET"
    ) -> Answer:
        """Any other request, without the token."""
        async with self.http.request(method, self.url + path, headers=headers) as answer:
            return Answer(answer.status, answer.headers, await answer.read())


@asynccontextmanager
async def running(
    folder: Path, engine: FakeEngine | None = None, **overrides: Any
) -> AsyncIterator[RunningContainer]:
    """A runner for the length of the block."""
    settings = settings_of(folder, **overrides)
    opener = (engine or FakeEngine()).opener
    async with open_container(settings, engine_opener=opener) as container:
        yield container


@asynccontextmanager
async def calling(container: RunningContainer, token: str = "") -> AsyncIterator[Caller]:
    """A caller of a runner."""
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as http:
        yield Caller(container.url, http, token)


@asynccontextmanager
async def called(
    folder: Path, engine: FakeEngine | None = None, **overrides: Any
) -> AsyncIterator[Caller]:
    """A runner and its caller."""
    async with running(folder, engine, **overrides) as container, calling(container) as caller:
        yield caller


async def until_active(engine: FakeEngine, jobs: int) -> None:
    """Wait until the engine works at so many jobs."""
    for _ in range(1000):
        if engine.active == jobs:
            return
        await asyncio.sleep(0.01)
    raise AssertionError(f"{engine.active} jobs are active, not {jobs}")
