"""Repeats as the settings want them."""

import secrets
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Final

from gateway.accounting.journal import Journal
from gateway.config import GatewaySettings
from gateway.dispatch import Dispatcher
from gateway.payments.allowance import Allowances
from gateway.repeats.answering import Answering
from gateway.repeats.memory import Memory
from gateway.repeats.recollection import Recollection
from gateway.repeats.repeating import Repeating, Rules, Run
from gateway.repeats.watching import RepeatsWatching
from gateway.storage.store import ImageStore
from network.errors import ConfigError
from network.runtime.clock import Clock
from network.runtime.supervisor import supervise

_SECRET_BYTES: Final = 32


@dataclass(frozen=True, slots=True)
class Repeats:
    """What the rest of the gateway uses in the place of its dispatcher."""

    dispatcher: Repeating
    watching: RepeatsWatching[Run]


@asynccontextmanager
async def open_repeats(
    settings: GatewaySettings,
    dispatcher: Dispatcher,
    *,
    journal: Journal,
    allowances: Allowances,
    images: ImageStore,
    clock: Clock,
) -> AsyncIterator[Repeats | None]:
    """None where nothing of it is switched on. To be left after everything that serves clients.

    Raises ConfigError.
    """
    wanted = settings.repeats
    if wanted.cache and settings.images.store and settings.images.urls == "presigned":
        raise ConfigError(
            "repeats.cache",
            'needs images that the gateway can read again: set images.urls to "proxied"',
        )
    if not (wanted.cache or wanted.coalesce):
        yield None
        return
    async with supervise(clock) as supervisor:
        recollection: Recollection | None = None
        if wanted.cache:
            lifetime = settings.images.lifetime_seconds
            memory = Memory(most=wanted.max_answers, lifetime=lifetime)
            recollection = Recollection(memory, images, supervisor, clock)
        repeating = Repeating(
            dispatcher,
            Answering(journal, allowances, dispatcher.routing, clock),
            recollection,
            Rules(wanted.scope, wanted.coalesce, wanted.price),
            # Drawn anew by each process, for what it remembers ends with it.
            secret=secrets.token_bytes(_SECRET_BYTES),
            supervisor=supervisor,
            clock=clock,
        )
        yield Repeats(repeating, RepeatsWatching(dispatcher.watching, repeating.flights))
