"""Everything that keeps answers, put together."""

import asyncio
import random
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import partial

from gateway.accounting.events import Fulfilment
from gateway.accounting.journal import Journal
from gateway.api.addresses import Addresses
from gateway.api.admission import Admission
from gateway.api.frontend import Watcher
from gateway.api.generation import Dispatching
from gateway.api.jobs import told
from gateway.api.keeper import Keeper, Readers
from gateway.api.kept_images import Images
from gateway.api.kept_job import Means
from gateway.api.promising import Bounds, Promising
from gateway.api.rates import Rates
from gateway.api.running import RunningRequests
from gateway.config import JobSettings
from gateway.keys import KeyGrant
from gateway.promises.courier import Courier, Delivering, open_session
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
    admission: Admission
    running: RunningRequests
    rates: Rates
    watcher: Watcher
    clock: Clock
    randomness: random.Random
    #: From which webhooks' secrets are made.
    master: bytes
    max_body_bytes: int
    body_timeout_seconds: float
    max_clients: int
    max_clients_per_key: int
    reveal_orchestrator: bool
    #: Seconds for which answers are kept: those of the images that they lead to.
    lifetime: float
    sweep_seconds: float


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
    settings: JobSettings, resources: Resources
) -> AsyncIterator[KeptAnswers]:
    """What an earlier process left waits for `resume`."""
    store = PromiseStore(resources.database, resources.journal)
    images = resources.images

    async def body(kept: Kept) -> bytes:
        return await told(kept, images)

    async with (
        open_session(allow_private=settings.private_webhooks) as session,
        supervise(resources.clock) as supervisor,
    ):
        courier = Courier(
            session=session,
            store=store,
            body=body,
            master=resources.master,
            delivering=Delivering(
                timeout=settings.webhook_timeout_seconds,
                first_pause=settings.webhook_first_pause_seconds,
                give_up=settings.webhook_give_up_seconds,
            ),
            supervisor=supervisor,
            clock=resources.clock,
            randomness=resources.randomness,
        )
        keeper = Keeper(_means(settings, resources, store, courier, supervisor))
        promising = Promising(
            keeper=keeper,
            store=store,
            images=images,
            addresses=resources.addresses,
            rates=resources.rates,
            admission=resources.admission,
            running=resources.running,
            bounds=_bounds(settings, resources),
            clock=resources.clock,
        )
        kept = KeptAnswers(
            promising, keeper, courier, store, images, resources.lifetime, resources.clock
        )
        supervisor.start("kept answers", partial(_sweep, kept, resources.sweep_seconds))
        yield kept


async def _sweep(kept: KeptAnswers, every: float) -> None:
    while True:
        await asyncio.sleep(every)
        await kept.sweep()


def _means(
    settings: JobSettings,
    resources: Resources,
    store: PromiseStore,
    courier: Courier,
    supervisor: Supervisor,
) -> Means:
    return Means(
        dispatcher=resources.dispatcher,
        admission=resources.admission,
        running=resources.running,
        images=resources.images,
        store=store,
        journal=resources.journal,
        supervisor=supervisor,
        courier=courier,
        watcher=resources.watcher,
        clock=resources.clock,
        reveal_orchestrator=resources.reveal_orchestrator,
        patience=settings.patience_seconds,
    )


def _bounds(settings: JobSettings, resources: Resources) -> Bounds:
    return Bounds(
        max_body_bytes=resources.max_body_bytes,
        body_timeout_seconds=resources.body_timeout_seconds,
        max_async=settings.max_async,
        max_async_per_key=settings.max_async_per_key,
        max_clients=resources.max_clients,
        max_clients_per_key=resources.max_clients_per_key,
        allow_private_webhooks=settings.private_webhooks,
    )
