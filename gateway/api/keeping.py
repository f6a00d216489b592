"""Everything that keeps answers, put together."""

import asyncio
import random
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import partial

from gateway.accounting.events import Fulfilment
from gateway.accounting.journal import Journal
from gateway.api.addresses import Addresses
from gateway.api.admission import Admission
from gateway.api.frontend import Watcher
from gateway.api.generation import Dispatching, Recovering
from gateway.api.jobs import told
from gateway.api.keeper import Keeper, Readers
from gateway.api.kept_images import Images
from gateway.api.kept_job import Means
from gateway.api.promising import Bounds, Promising
from gateway.api.rates import Rates
from gateway.api.running import RunningRequests
from gateway.config import GatewaySettings
from gateway.keys import KeyGrant
from gateway.promises.courier import Courier, Delivering, open_session
from gateway.promises.interrupted import Interrupted
from gateway.promises.model import Kept
from gateway.promises.store import PromiseStore
from network.runtime.clock import Clock
from network.runtime.database import Database
from network.runtime.supervisor import Supervisor, supervise


@dataclass(frozen=True, slots=True)
class Resources:
    """What the rest of the gateway shares with it."""

    database: Database
    journal: Journal
    images: Images
    addresses: Addresses
    dispatcher: Dispatching
    recovering: Recovering
    #: What an earlier process was cut off from.
    interrupted: Interrupted
    admission: Admission
    running: RunningRequests
    rates: Rates
    watchers: Sequence[Watcher]
    clock: Clock
    randomness: random.Random
    #: From which webhooks' secrets are made.
    master: bytes


@dataclass(frozen=True, slots=True)
class KeptAnswers:
    """What others use of it."""

    promising: Promising
    keeper: Keeper
    courier: Courier
    store: PromiseStore
    images: Images
    lifetime: float
    clock: Clock

    async def resume(self, grant_of: Callable[[str], KeyGrant | None], readers: Readers) -> None:
        """Go on with what an earlier process left. Raises DatabaseError."""
        await self.keeper.resume(grant_of, readers)
        await self.courier.resume()

    async def find(self, key_id: str, *, name: str) -> tuple[Kept, ...]:
        return await self.store.find(key_id, name=name)

    async def cancel(self, key_id: str, name: str) -> Fulfilment | None:
        return await self.keeper.cancel(key_id, name)

    async def told(self, kept: Kept) -> bytes:
        return await told(kept, self.images)

    async def sweep(self) -> None:
        """Forget answers whose images are gone by now. Raises DatabaseError."""
        await self.store.sweep(self.clock.now() - self.lifetime)


@asynccontextmanager
async def open_kept_answers(
    settings: GatewaySettings, resources: Resources
) -> AsyncIterator[KeptAnswers]:
    """What an earlier process left waits for `resume`."""
    store = PromiseStore(resources.database, resources.journal)
    images = resources.images

    async def body(kept: Kept) -> bytes:
        return await told(kept, images)

    async with (
        open_session(allow_private=settings.jobs.private_webhooks) as session,
        supervise(resources.clock) as supervisor,
    ):
        courier = Courier(
            session=session,
            store=store,
            body=body,
            master=resources.master,
            delivering=Delivering(
                timeout=settings.jobs.webhook_timeout_seconds,
                first_pause=settings.jobs.webhook_first_pause_seconds,
                give_up=settings.jobs.webhook_give_up_seconds,
            ),
            supervisor=supervisor,
            clock=resources.clock,
            randomness=resources.randomness,
        )
        keeper = Keeper(
            _means(settings, resources, store, courier, supervisor), resources.interrupted
        )
        promising = Promising(
            keeper=keeper,
            store=store,
            images=images,
            addresses=resources.addresses,
            rates=resources.rates,
            admission=resources.admission,
            running=resources.running,
            bounds=_bounds(settings),
            clock=resources.clock,
            randomness=resources.randomness,
        )
        # Answers lead to images, and end with them.
        lifetime, every = settings.images.lifetime_seconds, settings.images.sweep_seconds
        kept = KeptAnswers(promising, keeper, courier, store, images, lifetime, resources.clock)
        supervisor.start("kept answers", partial(_sweep, kept, every))
        patience = settings.jobs.recover_seconds
        supervisor.start("interrupted", partial(_close, resources.interrupted, patience))
        yield kept


async def _sweep(kept: KeptAnswers, every: float) -> None:
    while True:
        await asyncio.sleep(every)
        await kept.sweep()


async def _close(interrupted: Interrupted, patience: float) -> None:
    """Whoever asks again does so soon."""
    await asyncio.sleep(patience)
    await interrupted.close()


def _means(
    settings: GatewaySettings,
    resources: Resources,
    store: PromiseStore,
    courier: Courier,
    supervisor: Supervisor,
) -> Means:
    return Means(
        dispatcher=resources.dispatcher,
        recovering=resources.recovering,
        admission=resources.admission,
        running=resources.running,
        images=resources.images,
        store=store,
        journal=resources.journal,
        supervisor=supervisor,
        courier=courier,
        watchers=resources.watchers,
        clock=resources.clock,
        reveal_orchestrator=settings.server.reveal_orchestrator,
        patience=settings.jobs.patience_seconds,
    )


def _bounds(settings: GatewaySettings) -> Bounds:
    server, own = settings.server, settings.jobs
    return Bounds(
        max_body_bytes=settings.limits.max_body_bytes,
        body_timeout_seconds=server.body_timeout_seconds,
        max_async=own.max_async,
        max_async_per_key=own.max_async_per_key,
        # Twice: those that are answered, and those that wait for the same answers.
        max_clients=2 * server.max_in_flight,
        max_clients_per_key=2 * server.max_in_flight_per_key,
        allow_private_webhooks=own.private_webhooks,
    )
