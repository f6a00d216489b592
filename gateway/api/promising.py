"""Requests whose answers are kept: `Idempotency-Key`, `Prefer: respond-async`, `Limner-Webhook`."""

import asyncio
import random
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, replace
from time import perf_counter
from typing import Final
from weakref import WeakValueDictionary

import orjson
from aiohttp.web import BaseRequest, StreamResponse

from gateway.api.addresses import Addresses
from gateway.api.admission import Admission, check_steps
from gateway.api.answers import json_answer, json_bytes
from gateway.api.body import read_json_body
from gateway.api.exchange import Exchange, new_request_id
from gateway.api.generation import OVERHEAD, Asked, bad_request_id
from gateway.api.keeper import Keeper
from gateway.api.kept_images import Images, answer_lost, filled
from gateway.api.kept_job import Job, Outcome
from gateway.api.rates import Rates
from gateway.api.running import RunningRequests, id_in_use
from gateway.api.wishes import (
    IDEMPOTENCY_KEY,
    PREFER,
    RESPOND_ASYNC,
    WEBHOOK,
    Wish,
    has_wish,
    read_wish,
)
from gateway.dispatch.journey import seed_for
from gateway.keys import KeyGrant
from gateway.promises.model import Kept, Promise, asks_the_same, digest_of, headers_of
from gateway.promises.store import PromiseStore
from network.errors import ProblemError
from network.runtime.clock import Clock
from network.units import pixels_of
from network.wire import headers, problems

REPLAYED: Final = "Idempotency-Replayed"
_ACCEPTED: Final = 202


@dataclass(frozen=True, slots=True)
class Bounds:
    """Of what strangers may have us keep."""

    max_body_bytes: int
    body_timeout_seconds: float
    #: Jobs under way that nobody waits for.
    max_async: int
    max_async_per_key: int
    #: Clients that send such requests, or wait for their answers.
    max_clients: int
    max_clients_per_key: int
    #: Whether webhooks may be on private networks.
    allow_private_webhooks: bool


class Promising:
    """Serves them for every endpoint; one per gateway."""

    def __init__(
        self,
        *,
        keeper: Keeper,
        store: PromiseStore,
        images: Images,
        addresses: Addresses,
        rates: Rates,
        admission: Admission,
        running: RunningRequests,
        bounds: Bounds,
        clock: Clock,
        randomness: random.Random,
    ) -> None:
        self._keeper = keeper
        self._store = store
        self._images = images
        self._addresses = addresses
        self._rates = rates
        self._admission = admission
        self._running = running
        self._bounds = bounds
        self._clock = clock
        self._randomness = randomness
        self._clients = Admission(total=bounds.max_clients, per_key=bounds.max_clients_per_key)
        self._backlog = Admission(total=bounds.max_async, per_key=bounds.max_async_per_key)
        #: Of requests with one idempotency key, one after the other is looked at.
        self._turns: WeakValueDictionary[tuple[str, str], asyncio.Lock] = WeakValueDictionary()

    def is_meant(self, request: BaseRequest) -> bool:
        return has_wish(request.headers)

    async def serve(
        self,
        request: BaseRequest,
        exchange: Exchange,
        grant: KeyGrant,
        read: Callable[[bytes], Asked],
    ) -> StreamResponse:
        """As `Generation.serve`, which has seen to the key. Raises ProblemError."""
        bounds = self._bounds
        wish = read_wish(request.headers, allow_private=bounds.allow_private_webhooks)
        if exchange.bad_request_id:
            raise ProblemError(bad_request_id())
        # A repeat must not be refused a place for the very request that it repeats.
        if wish.webhook is not None and grant.client is not None:
            message = f"{WEBHOOK} takes a key: without one, ask for the answer at its status_url."
            raise ProblemError(problems.forbidden(message))
        with self._clients.place(self._as_client(grant)):
            body = await read_json_body(
                request,
                exchange,
                max_bytes=bounds.max_body_bytes,
                timeout_seconds=bounds.body_timeout_seconds,
            )
            asked = read(body)
            if asked.tell is None:
                message = f"A stream goes with neither {IDEMPOTENCY_KEY} nor {PREFER}."
                raise ProblemError(problems.bad_request(message, param="stream"))
            wanted = asked.wanted
            check_steps(grant, wanted.num_inference_steps)
            exchange.model_id = wanted.model_id
            exchange.pixels = pixels_of(wanted.width, wanted.height, wanted.num_images_per_prompt)
            promise = Promise(
                promise_id=new_request_id(),
                key_id=grant.owner,
                name=exchange.request_id,
                request_id=new_request_id(),
                endpoint=exchange.route,
                digest=digest_of(exchange.route, body, wish.webhook),
                idempotency_key=wish.idempotency_key,
                body=body if wish.is_async else None,
                base_url=self._addresses.base(request),
                webhook=wish.webhook,
                created_at=self._clock.now(),
                seed=seed_for(wanted, self._randomness),
            )
            taken, is_repeat = await self._take(promise, grant, asked)
            return await self._answer(wish, taken, exchange, is_repeat=is_repeat)

    def _as_client(self, grant: KeyGrant) -> KeyGrant:
        """With room to wait for as many answers as the key, and the address, may have made, twice."""
        own, client = grant.max_in_flight, grant.client
        most = None if own is None else max(2 * own, self._bounds.max_clients_per_key)
        if client is not None:
            client = replace(client, max_in_flight=2 * client.max_in_flight)
        return replace(grant, max_in_flight=most, client=client)

    async def _take(
        self, promise: Promise, grant: KeyGrant, asked: Asked
    ) -> tuple[Job | Kept, bool]:
        """What the request comes to, and whether it is a repeat. Raises ProblemError."""
        key = promise.idempotency_key
        if key is None:
            return await self._begin(promise, grant, asked), False
        turn = self._turns.setdefault((promise.key_id, key), asyncio.Lock())
        async with turn:
            job = self._keeper.repeated(promise.key_id, key)
            if job is None:
                found = await self._begin(promise, grant, asked)
                return found, isinstance(found, Kept)
        _check_same(job.promise, promise)
        return job, True

    async def _begin(self, promise: Promise, grant: KeyGrant, asked: Asked) -> Job | Kept:
        """A new job, or what is kept of an earlier one."""
        instead_of: str | None = None
        key = promise.idempotency_key
        for kept in await self._store.find(promise.key_id, name=promise.name, idempotency_key=key):
            before = kept.promise
            if key is None or before.idempotency_key != key:
                raise ProblemError(id_in_use("was answered, and its answer is kept"))
            if not kept.binds:
                if before.name == promise.name:
                    instead_of = before.promise_id
                else:
                    await self._store.release(before.promise_id)
                continue
            _check_same(before, promise)
            if kept.fulfilment is not None:
                return kept
            if kept.charged is not None:
                raise ProblemError(answer_lost(str(kept.charged)))
            if before.is_async:
                message = "The request with this key is under way elsewhere; ask for it later."
                raise ProblemError(problems.conflict(message, "in_progress"))
            # An earlier process was cut off in the middle of it, and nothing was charged.
            instead_of = before.promise_id
            promise = self._keeper.taking_up(promise, before)
        with ExitStack() as held:
            if promise.is_async:
                # However many places the key has, its backlog is bounded as everybody's.
                held.enter_context(self._backlog.place(replace(grant, max_in_flight=None)))
            held.enter_context(self._admission.place(grant))
            wanted = asked.wanted
            self._rates.take_pixels(
                grant, pixels_of(wanted.width, wanted.height, wanted.num_images_per_prompt)
            )
            entry = held.enter_context(
                self._running.track(grant, promise.name, promise.request_id, wanted)
            )
            return self._keeper.begin(
                promise, grant, asked, entry, held.pop_all(), instead_of=instead_of
            )

    async def _answer(
        self, wish: Wish, taken: Job | Kept, exchange: Exchange, *, is_repeat: bool
    ) -> StreamResponse:
        if wish.is_async:
            state = "waiting"
            if isinstance(taken, Kept) and taken.fulfilment is not None:
                state = taken.fulfilment.state
            if isinstance(taken, Kept) or await asyncio.shield(taken.promised):
                return _accepted(taken.promise, state, is_repeat=is_repeat)
        outcome = await _outcome(taken, exchange)
        fulfilment = outcome.fulfilment
        exchange.job_id = fulfilment.request_id
        head = headers_of(fulfilment)
        if fulfilment.state == "done":
            fee = head[headers.FEE]
            body = await filled(outcome.body, self._images, fee)
            head[OVERHEAD] = f"{exchange.own_seconds() * 1000:.3f}"
        else:
            body = outcome.body
            exchange.code = orjson.loads(body)["error"]["code"]
        response = json_bytes(body, fulfilment.status)
        response.headers.update(head)
        if is_repeat:
            response.headers[REPLAYED] = "true"
        return response


async def _outcome(taken: Job | Kept, exchange: Exchange) -> Outcome:
    if isinstance(taken, Kept):
        if taken.fulfilment is None:
            raise TypeError("only what is fulfilled is kept without a job")
        return Outcome(taken.fulfilment, taken.fulfilment.body.encode())
    waiting_since = perf_counter()
    try:
        # Whoever waits may leave: the job goes on, and a repeat finds its answer.
        return await asyncio.shield(taken.ended)
    finally:
        exchange.foreign_seconds += perf_counter() - waiting_since


def _accepted(promise: Promise, state: str, *, is_repeat: bool) -> StreamResponse:
    url = f"{promise.base_url}/jobs/{promise.name}"
    told = {
        "id": promise.name,
        "state": state,
        "status_url": url,
        "events_url": f"{url}/events",
    }
    response = json_answer(told, _ACCEPTED)
    response.headers["Location"] = url
    response.headers["Preference-Applied"] = RESPOND_ASYNC
    if is_repeat:
        response.headers[REPLAYED] = "true"
    return response


def _check_same(before: Promise, now: Promise) -> None:
    if not asks_the_same(before, now):
        raise ProblemError(problems.key_reused())
