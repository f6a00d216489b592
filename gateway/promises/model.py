"""A promise, what became of it, and which answers bind. Pure."""

import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

import orjson

from gateway.accounting.events import Fulfilment, FulfilmentState
from network.errors import Problem
from network.units import Wei

#: Visible ASCII.
IDEMPOTENCY_KEY_PATTERN: Final = "[!-~]{1,255}"
_IDEMPOTENCY_KEY: Final = re.compile(IDEMPOTENCY_KEY_PATTERN)
#: Faults of the client's that asking again does not mend. What is spent, too much at once or out of
#: order today is not among them: a repeat tries again.
_LASTING: Final = frozenset({400, 404, 413, 415, 422})
#: Characters of an answer that are kept. Images are not among them, but for those that no disk took.
LARGEST_BODY: Final = 64 * 1024
CANCELLED: Final = "cancelled"
ANSWER_LOST: Final = "answer_lost"


@dataclass(frozen=True, slots=True)
class Promise:
    """A request whose answer is kept."""

    promise_id: str
    #: Its owner (`gateway.keys.KeyGrant.owner`): a key, or one of those who share it.
    key_id: str
    #: The client's X-Request-Id: what it asks for at `/jobs/{name}`. One key has each only once.
    name: str
    #: What the journal calls it; another id each time it is run again.
    request_id: str
    #: The route's name.
    endpoint: str
    #: Of the endpoint, the body and the webhook.
    digest: str
    idempotency_key: str | None
    #: What was asked, for as long as nobody waits for the answer and it may have to be asked again.
    body: bytes | None
    #: Of the URLs in the answer, such as "https://gateway.example".
    base_url: str
    webhook: str | None
    #: Unix seconds.
    created_at: float
    #: Of the first image, whoever makes it in whichever process.
    seed: int | None = None

    @property
    def is_async(self) -> bool:
        """Whether it is to be fulfilled though nobody waits, after a restart as well."""
        return self.body is not None


@dataclass(frozen=True, slots=True)
class Kept:
    """A promise as the database has it."""

    promise: Promise
    #: None while it is under way, and where a process ended before it was done.
    fulfilment: Fulfilment | None
    #: What its client was charged; None if nothing was.
    charged: Wei | None = None

    @property
    def binds(self) -> bool:
        """Whether a repeat gets this answer; otherwise it is a request like any other."""
        return self.fulfilment is None or is_lasting(self.fulfilment)


def is_idempotency_key(text: str) -> bool:
    return _IDEMPOTENCY_KEY.fullmatch(text) is not None


def names_other_webhook(before: Promise, now: Promise) -> bool:
    """Whether a repeat wants somebody else told. One that names nobody asks for the answer only.

    Of a webhook that was told already, or given up, nothing is kept but its digest.
    """
    if now.webhook is None:
        return False
    return _webhook_part(before.digest) != _webhook_part(now.digest)


def _webhook_part(digest: str) -> str:
    return digest.partition(" ")[2]


def digest_of(endpoint: str, body: bytes, webhook: str | None = None) -> str:
    """SHA-256 in hex: what tells a repeat from another request; after a space, that of its webhook."""
    asked = _asked_digest(endpoint, body)
    return asked if webhook is None else f"{asked} {hashlib.sha256(webhook.encode()).hexdigest()}"


def asks_the_same(before: Promise, now: Promise) -> bool:
    """Whether the second is a repeat of the first."""
    same_body = before.digest.partition(" ")[0] == now.digest.partition(" ")[0]
    return same_body and not names_other_webhook(before, now)


def _asked_digest(endpoint: str, body: bytes) -> str:
    return hashlib.sha256(endpoint.encode() + b"\n" + body).hexdigest()


def is_lasting(fulfilment: Fulfilment) -> bool:
    return fulfilment.state != "failed" or fulfilment.status in _LASTING


def delivered(
    request_id: str, answer: Mapping[str, Any], headers: Mapping[str, str], now: float
) -> tuple[Fulfilment, bytes]:
    """What is kept of an answer with images, and the whole of it."""
    body = orjson.dumps(answer)
    kept = body.decode() if len(body) <= LARGEST_BODY else ""
    return Fulfilment(request_id, "done", 200, kept, _json(headers), now), body


def refused(request_id: str, problem: Problem, now: float) -> Fulfilment:
    """What is kept of an answer without images."""
    state: FulfilmentState = "cancelled" if problem.code == CANCELLED else "failed"
    body = problem.body().decode()
    return Fulfilment(request_id, state, problem.status, body, _json(problem.headers), now)


def headers_of(fulfilment: Fulfilment) -> dict[str, str]:
    found: dict[str, str] = orjson.loads(fulfilment.headers)
    return found


def _json(headers: Mapping[str, str]) -> str:
    return orjson.dumps(dict(headers)).decode()
