"""What the commands ask a gateway over HTTP."""

from collections.abc import Mapping
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Self

import orjson
import pybase64
from aiohttp import (
    ClientConnectionError,
    ClientError,
    ClientResponse,
    ClientSession,
    ClientTimeout,
)

from network.errors import LimnerError
from network.wire import headers
from network.wire.safety import Safety, told_safety

_PROGRESS_SECONDS = 2.0
_CONNECT_SECONDS = 10.0
_DATA_URL = "data:image/png;base64,"


class RefusedError(LimnerError):
    """The gateway answered with an error."""

    def __init__(self, status: int, message: str, retry_after: str | None) -> None:
        hint = f" Try again in {retry_after} s." if retry_after else ""
        super().__init__(f"{status}: {message}{hint}")
        self.status = status


class UnreachableError(LimnerError):
    """No answer, or one that is not a gateway's."""


@dataclass(frozen=True, slots=True)
class Image:
    """One image of an answer."""

    url: str
    seed: int
    safety: Safety


@dataclass(frozen=True, slots=True)
class Answer:
    """A 200; fee and orchestrator are empty where another gateway does not tell."""

    images: tuple[Image, ...]
    fee: str
    orchestrator: str
    #: What of the request had no effect.
    warnings: str = ""


@dataclass(frozen=True, slots=True)
class Job:
    """How far a request is."""

    state: str
    done_steps: int
    total_steps: int
    position: int


class GatewayClient:
    """A session with one gateway; an async context manager."""

    def __init__(self, url: str, key: str) -> None:
        self._url = url
        # No limit on the whole: a large image on a slow orchestrator may take minutes.
        timeout = ClientTimeout(total=None, sock_connect=_CONNECT_SECONDS)
        self._session = ClientSession(timeout=timeout)
        self._authorization = {"Authorization": f"Bearer {key}"}

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self._session.close()

    async def text_to_image(self, body: Mapping[str, object], request_id: str) -> Answer:
        """Raises RefusedError or UnreachableError."""
        sent = {
            **self._authorization,
            "Content-Type": "application/json",
            headers.REQUEST_ID: request_id,
        }
        url = f"{self._url}/text-to-image"
        try:
            async with self._session.post(url, data=orjson.dumps(body), headers=sent) as response:
                return _answer(await _checked(response), response.headers)
        except ClientConnectionError as error:
            raise UnreachableError(f"no gateway answers at {self._url}: {error}") from error
        except (ClientError, ValueError) as error:
            raise UnreachableError(f"{self._url} did not answer as a gateway: {error}") from error

    async def progress(self, request_id: str) -> Job | None:
        """None while the gateway cannot tell; asking never disturbs the request itself."""
        url = f"{self._url}/jobs/{request_id}"
        timeout = ClientTimeout(total=_PROGRESS_SECONDS)
        try:
            async with self._session.get(
                url, headers=self._authorization, timeout=timeout
            ) as response:
                if response.status != 200:  # noqa: PLR2004
                    return None
                said = orjson.loads(await response.read())
                counts = (said[name] for name in ("done_steps", "total_steps", "position"))
                return Job(str(said["state"]), *(int(count) for count in counts))
        except (ClientError, TimeoutError, ValueError, KeyError, TypeError):
            return None

    async def fetch(self, url: str) -> bytes:
        """The bytes of an image; raises RefusedError or UnreachableError."""
        if url.startswith(_DATA_URL):
            return pybase64.b64decode(url.removeprefix(_DATA_URL), validate=True)
        absolute = url if "://" in url else self._url + url
        try:
            async with self._session.get(absolute) as response:
                return await _checked(response)
        except (ClientError, TimeoutError) as error:
            raise UnreachableError(
                f"the image could not be fetched from {absolute}: {error}"
            ) from error


async def _checked(response: ClientResponse) -> bytes:
    body = await response.read()
    if response.status == 200:  # noqa: PLR2004
        return body
    raise RefusedError(response.status, _reason(body), response.headers.get("Retry-After"))


def _reason(body: bytes) -> str:
    try:
        return str(orjson.loads(body)["error"]["message"])
    except (ValueError, KeyError, TypeError):
        return body[:200].decode(errors="replace") or "no reason given"


def _answer(body: bytes, said: Mapping[str, str]) -> Answer:
    content: dict[str, Any] = orjson.loads(body)
    try:
        images = tuple(
            Image(
                str(one["url"]),
                int(one["seed"]),
                told_safety(one.get("safety"), nsfw=bool(one["nsfw"])),
            )
            for one in content["images"]
        )
    except (KeyError, TypeError) as error:
        raise UnreachableError("the answer is not a gateway's: it holds no images") from error
    return Answer(
        images,
        said.get(headers.FEE, ""),
        said.get("X-Limner-Orchestrator", ""),
        said.get(headers.WARNINGS, ""),
    )
