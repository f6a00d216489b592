"""One JSON-RPC endpoint: asks it, reads its answers, and knows whether it can be trusted now."""

import asyncio
import itertools
import re
from collections.abc import Sequence
from typing import Any, Final

import aiohttp
import orjson
import structlog
import yarl

from network.chain.breaker import Breaker
from network.chain.model import (
    ChainError,
    ChainUnavailableError,
    RefusedError,
    RevertedError,
    WrongChainError,
)
from network.errors import ConfigError
from network.runtime.clock import Clock

_MOST_ANSWER_BYTES: Final = 32 * 1024 * 1024
_LONGEST_MESSAGE: Final = 300
_OK: Final = 200
#: The selector of Error(string), which `require` and `revert` with a text answer with.
_ERROR_STRING: Final = bytes.fromhex("08c379a0")
_REVERT_CODE: Final = 3
_WORD: Final = 32
_REVERTED: Final = re.compile(r"execution reverted(?:: ?(?P<reason>.*))?", re.DOTALL)
#: What nodes say that lack a block that another node has.
_BEHIND: Final = re.compile(
    r"header not found|unknown block|block not found|missing trie node|unsupported block number"
    r"|out ?of ?range|not (yet )?available|could not find block",
    re.IGNORECASE,
)
_LIMITED: Final = re.compile(r"rate.?limit|too many requests|capacity|throttl", re.IGNORECASE)

_log = structlog.get_logger(__name__)


class EndpointDownError(ChainUnavailableError):
    """No answer, or none that is JSON-RPC: whether the request took effect is not known."""


class EndpointBehindError(ChainUnavailableError):
    """The endpoint works, but has not yet seen the block that it is asked about."""


class Endpoint:
    """Used from one event loop. `host` names it in messages: the URL may hold a key."""

    def __init__(
        self,
        url: str,
        chain_id: int,
        session: aiohttp.ClientSession,
        clock: Clock,
        timeout_seconds: float,
    ) -> None:
        """Raises ConfigError if `url` is no URL."""
        self._url, self.host = _parsed(url)
        self._chain_id = chain_id
        self._session = session
        self._clock = clock
        self._timeout = aiohttp.ClientTimeout(total=timeout_seconds)
        self._breaker = Breaker()
        self._ids = itertools.count(1)
        #: Forgotten with each failure: behind a URL another node may answer afterwards.
        self._is_verified = False
        self._verifying = asyncio.Lock()

    async def request(self, method: str, params: Sequence[object]) -> Any:
        """The `result` of a call.

        Raises EndpointDownError, EndpointBehindError, WrongChainError, RevertedError for a
        contract's refusal and RefusedError for any other error of the endpoint.
        """
        if not self._breaker.admits(self._clock.monotonic()):
            raise EndpointDownError(f"{self.host} failed lately and is left alone for a while")
        try:
            if not self._is_verified:
                await self._verify()
            result = await self._ask(method, params)
        except (EndpointDownError, WrongChainError):
            self._is_verified = False
            was_open = self._breaker.is_open
            self._breaker.failed(self._clock.monotonic())
            if self._breaker.is_open and not was_open:
                _log.warning("RPC endpoint keeps failing; it is left alone", host=self.host)
            raise
        except ChainError:
            self._answered()
            raise
        except asyncio.CancelledError:
            self._breaker.abandoned()
            raise
        self._answered()
        return result

    def _answered(self) -> None:
        if self._breaker.is_open:
            _log.info("RPC endpoint answers again", host=self.host)
        self._breaker.succeeded()

    async def _verify(self) -> None:
        async with self._verifying:
            if self._is_verified:
                return
            answer = await self._ask("eth_chainId", ())
            found = quantity(answer)
            if found != self._chain_id:
                raise WrongChainError(
                    f"{self.host} serves chain {found}, but chain {self._chain_id} is configured; "
                    "correct chain.network or chain.rpc"
                )
            self._is_verified = True

    async def _ask(self, method: str, params: Sequence[object]) -> Any:
        identity = next(self._ids)
        body = orjson.dumps(
            {"jsonrpc": "2.0", "id": identity, "method": method, "params": list(params)}
        )
        answer = await self._post(body)
        try:
            parsed = orjson.loads(answer)
        except orjson.JSONDecodeError:
            raise EndpointDownError(f"{self.host} answers something else than JSON") from None
        if not isinstance(parsed, dict) or parsed.get("id") not in (identity, None):
            raise EndpointDownError(f"{self.host} answers something else than JSON-RPC")
        if parsed.get("error") is not None:
            raise self._refusal(parsed["error"])
        if "result" not in parsed:
            raise EndpointDownError(f"{self.host} answers something else than JSON-RPC")
        return parsed["result"]

    async def _post(self, body: bytes) -> bytes:
        headers = {"Content-Type": "application/json"}
        try:
            async with self._session.post(
                self._url, data=body, headers=headers, timeout=self._timeout
            ) as response:
                answer = bytearray()
                async for chunk in response.content.iter_any():
                    answer += chunk
                    if len(answer) > _MOST_ANSWER_BYTES:
                        raise EndpointDownError(f"{self.host} answers more than 32 MiB")
                # Some nodes put a status of 4xx or 5xx on answers that are JSON-RPC all the same.
                if response.status != _OK and not answer.startswith(b'{"jsonrpc"'):
                    raise EndpointDownError(f"{self.host} answers {response.status}")
                return bytes(answer)
        except TimeoutError:
            raise EndpointDownError(
                f"{self.host} gave no answer within {self._timeout.total:g} s"
            ) from None
        except aiohttp.ClientConnectionError as error:
            raise EndpointDownError(f"cannot reach {self.host}: {_system_words(error)}") from None
        except (aiohttp.ClientError, ValueError) as error:
            # Their own text may hold the URL.
            raise EndpointDownError(f"{self.host} breaks HTTP: {type(error).__name__}") from None

    def _refusal(self, error: object) -> ChainError:
        fields = error if isinstance(error, dict) else {"message": error}
        message = str(fields.get("message") or "without a reason")[:_LONGEST_MESSAGE]
        code = fields.get("code")
        code = code if isinstance(code, int) else 0
        data = fields.get("data")
        reverted = _REVERTED.search(message)
        if code == _REVERT_CODE or reverted is not None:
            spoken = (reverted["reason"] or "").strip() if reverted else ""
            return RevertedError(revert_reason(data) or spoken)
        if _LIMITED.search(message):
            return EndpointDownError(f"{self.host} limits the rate of requests")
        if _BEHIND.search(message):
            return EndpointBehindError(f"{self.host} lacks a block: {message}")
        return RefusedError(message, code)


def quantity(value: object) -> int:
    """A number as JSON-RPC writes it, "0x1a". Raises EndpointDownError."""
    try:
        return int(str(value), 16)
    except ValueError:
        raise EndpointDownError(f"an endpoint wrote {str(value)[:80]!r} for a number") from None


def revert_reason(data: object) -> str:
    """The text of Error(string) out of an error's `data`; "" if it holds none."""
    if isinstance(data, dict):
        data = data.get("data") or data.get("result")
    try:
        raw = bytes.fromhex(str(data).removeprefix("0x"))
    except ValueError:
        return ""
    if not raw.startswith(_ERROR_STRING):
        return ""
    body = raw[len(_ERROR_STRING) :]
    size = int.from_bytes(body[_WORD : 2 * _WORD], "big")
    return body[2 * _WORD : 2 * _WORD + size].decode(errors="replace")


def _parsed(url: str) -> tuple[yarl.URL, str]:
    """A URL, and what of it may be shown."""
    try:
        parsed = yarl.URL(url)
    except ValueError:
        parsed = yarl.URL()
    if not parsed.host:
        raise ConfigError("chain.rpc", "an endpoint is not a URL such as https://host/path")
    port = parsed.explicit_port
    return parsed, parsed.host + (f":{port}" if port else "")


def _system_words(error: aiohttp.ClientConnectionError) -> str:
    if isinstance(error, aiohttp.ClientConnectorError):
        return error.os_error.strerror or type(error.os_error).__name__
    return type(error).__name__
