"""go-livepeer's AI worker and what stands behind it, scripted from livepeer-runner 1.3, 1.6 and 1.7.

It is as brittle as the real one: an answer that it does not know ends its process, which here is
`GoPanicError`.
"""

import asyncio
from dataclasses import dataclass, field
from typing import Any, Literal

import aiohttp
import orjson

HEALTH = {"LOADING", "OK", "ERROR", "IDLE"}
#: What the gateway does about the orchestrator that answered so.
Consequence = Literal["client is told", "another is tried", "suspended"]


class GoPanicError(Exception):
    """A nil pointer was followed: the orchestrator is gone, and its capacity with it."""


class WorkerError(Exception):
    """The worker's error for the orchestrator, which hands its text to the gateway."""

    @property
    def consequence(self) -> Consequence:
        text = str(self).lower()
        if "returned 400" in text:
            return "client is told"
        if "insufficient capacity" in text:
            return "another is tried"
        return "suspended"


@dataclass(slots=True)
class GoWorker:
    """The client of one external container, from an entry of aiModels.json."""

    http: aiohttp.ClientSession
    entry: dict[str, Any]
    token: str = ""
    period: float = 5.0
    hardware: dict[str, Any] = field(default_factory=dict)
    version: str = ""
    healths: list[str] = field(default_factory=list)
    failures: int = 0
    #: two health checks in a row failed
    is_destroyed: bool = False

    async def start(self) -> None:
        """Wait until the runner is ready, then ask what it is."""
        for _ in range(int(120 / self.period)):
            if await self._health() == "OK":
                break
            await asyncio.sleep(self.period)
        else:
            raise WorkerError("the runner did not become ready")
        self.hardware = await self._get("/hardware/info")
        assert isinstance(self.hardware["gpu_info"], dict)
        about = await self._get("/version")
        assert (about["pipeline"], about["model_id"]) == (
            self.entry["pipeline"],
            self.hardware["model_id"],
        )
        self.version = about["version"]
        assert isinstance(self.version, str)

    async def watch(self) -> None:
        """Look after the runner until cancelled, or until it is given up."""
        while not self.is_destroyed:
            status = await self._health()
            self.healths.append(status)
            # IDLE: a borrowed container would go back to the pool. ERROR: it is started anew.
            self.failures = 0 if status == "OK" else self.failures + 1
            self.is_destroyed = status in {"ERROR", "IDLE"} or self.failures > 1
            await asyncio.sleep(self.period)

    async def text_to_image(self, **params: Any) -> list[dict[str, Any]]:
        """Return the images. Raises WorkerError; GoPanicError where the real one crashes."""
        body = {"model_id": self.entry["model_id"], **params}
        headers = {"Authorization": f"Bearer {self.token}"} if self.token else {}
        url = f"{self.entry['url']}/text-to-image"
        async with self.http.post(url, json=body, headers=headers) as answer:
            content = await answer.read()
            kind = answer.headers.get("Content-Type", "")
            status = answer.status
        if status not in {200, 400, 401, 422, 500} or "json" not in kind:
            raise GoPanicError(f"status {status}, {kind}")
        value = orjson.loads(content)
        if status == 200:
            return [_media(image) for image in value["images"]]
        if status == 422:
            told = [
                f"{fault['loc']} {fault['msg']} ({fault['type']})" for fault in value["detail"]
            ]
            raise WorkerError(f"text-to-image container returned 422: {told}")
        message = value["detail"]["msg"]
        assert isinstance(message, str)
        if status == 500:
            raise WorkerError(f"text-to-image container returned 500: {message}")
        raise WorkerError(f"text-to-image container returned {status}: {message}")

    async def _health(self) -> str:
        try:
            async with asyncio.timeout(5):
                status = (await self._get("/health"))["status"]
        except (TimeoutError, aiohttp.ClientError):
            return "no answer"
        assert status in HEALTH
        return str(status)

    async def _get(self, path: str) -> dict[str, Any]:
        async with self.http.get(self.entry["url"] + path) as answer:
            assert answer.status == 200, (path, answer.status)
            found: dict[str, Any] = orjson.loads(await answer.read())
            return found


def _media(image: dict[str, Any]) -> dict[str, Any]:
    """Decode as a generated client does: three fields, none of them null."""
    assert isinstance(image["url"], str)
    assert type(image["seed"]) is int
    assert type(image["nsfw"]) is bool
    return image
