"""Builds the node's side of payments on one chain."""

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from typing import Final

import structlog
from sqlalchemy import Connection

from network.chain.contracts import open_chain
from network.chain.model import Chain, ChainError, WrongChainError
from network.chain.profiles import Profile, endpoints_of
from network.chain.settings import ChainSettings
from network.chain.watch import ChainWatch
from network.errors import ConfigError
from network.payments.checks import PayerLimits
from network.runtime.clock import Clock
from network.runtime.database import Database
from network.runtime.supervisor import supervise
from network.units import Address, ModelId, Pixels
from node.config.catalogue import Catalogue
from node.config.settings import NodeSettings, PaymentSettings
from node.payments.quoting import LIFETIME_BLOCKS, QuotePolicy
from node.payments.receiver import GRACE_BLOCKS, Receiver
from node.payments.redemptions import Redemptions, State
from node.payments.secret import ticket_secret
from node.payments.standing import Standings
from node.payments.till import Till
from node.payments.usual import UsualJobs
from node.payments.winnings import Pending, newest_expiration, seen_nonces

ChainOpener = Callable[[Profile, ChainSettings, Clock], AbstractAsyncContextManager[Chain]]

#: Seconds that a start waits for the chain; without it the node serves, and quotes nothing.
_FIRST_LOOK: Final = 10.0

#: What a ticket's sender has yet to pay for.
_OWED: Final = (State.QUEUED, State.SENT)

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Payments:
    """What a node that is paid by ticket has. `pending` is to be told of what was redeemed."""

    chain: Chain
    watch: ChainWatch
    till: Till
    pending: Pending


@asynccontextmanager
async def open_livepeer_chain(
    profile: Profile, settings: ChainSettings, clock: Clock
) -> AsyncIterator[Chain]:
    """Open the contracts of `profile`. Raises ConfigError, also for endpoints of another chain."""
    urls = endpoints_of(settings, profile)
    chain = open_chain(profile, urls, clock, timeout_seconds=settings.timeout_seconds)
    async with AsyncExitStack() as stack:
        try:
            opened = await stack.enter_async_context(chain)
        except WrongChainError as error:
            raise ConfigError("chain.rpc", str(error)) from error
        yield opened


@asynccontextmanager
async def open_payments(
    profile: Profile,
    settings: NodeSettings,
    recipient: Address,
    models: Catalogue,
    *,
    database: Database,
    clock: Clock,
    opener: ChainOpener = open_livepeer_chain,
) -> AsyncIterator[Payments]:
    """Take payments to `recipient` for the length of the block, from where an earlier process ended.

    Raises ConfigError or DatabaseError.
    """
    secret = await asyncio.to_thread(ticket_secret, settings.data_dir, profile.chain_id)
    # The jobs end before the chain is closed that they read.
    async with opener(profile, settings.chain, clock) as chain, supervise(clock) as supervisor:
        watch = ChainWatch(
            chain,
            clock,
            poll_seconds=settings.chain.poll_seconds,
            stale_seconds=settings.chain.stale_seconds,
        )
        standings = Standings(watch, recipient, clock, max_age=settings.chain.stale_seconds)
        unsubscribe = watch.subscribe(standings.on_head)
        await _first_look(watch)
        pending = Pending()
        records = await Redemptions(database, clock).unfinished()
        pending.restore(record.winner for record in records if record.state in _OWED)
        receiver = Receiver(secret, recipient, max_tickets=settings.payments.max_tickets)
        await database.read(lambda connection: _recall(connection, receiver))
        till = Till(
            view=watch,
            standings=standings,
            receiver=receiver,
            policy=_policy(settings.payments),
            usual=UsualJobs(native_sizes(models)),
            recipient=recipient,
            secret=secret,
            pending=pending.of,
            won=pending.add,
            now=clock.now,
        )
        supervisor.start("chain", watch.run)
        supervisor.start("standings", standings.run)
        try:
            yield Payments(chain, watch, till, pending)
        finally:
            unsubscribe()


def native_sizes(models: Catalogue) -> Mapping[ModelId, Pixels]:
    """Return what models were trained for, of those whose profiles tell."""
    profiles = {m.model_id: m.profile for m in models.models if m.profile is not None}
    return {
        model_id: Pixels(profile.size[0] * profile.size[1])
        for model_id, profile in profiles.items()
        if profile.size is not None
    }


async def _first_look(watch: ChainWatch) -> None:
    try:
        async with asyncio.timeout(_FIRST_LOOK):
            await watch.refresh()
    except WrongChainError as error:
        raise ConfigError("chain.rpc", str(error)) from error
    except (TimeoutError, ChainError) as error:
        problem = str(error) or "no answer in time"
        log.warning("the chain cannot be read; nothing is quoted until it is", problem=problem)


def _recall(connection: Connection, receiver: Receiver) -> None:
    """Remember tickets that may come again.

    The newest of them was quoted when the chain had come to its expiration less a quote's lifetime, so
    how far it is now need not be known.
    """
    newest = newest_expiration(connection)
    if newest is not None:
        reached = newest - LIFETIME_BLOCKS
        receiver.remember(seen_nonces(connection, reached - GRACE_BLOCKS))
        receiver.advance(reached)


def _policy(settings: PaymentSettings) -> QuotePolicy:
    return QuotePolicy(
        redeem_gas=settings.redeem_gas,
        max_ticket_value=settings.max_ticket_value,
        max_face_value=settings.max_face_value,
        max_tickets=min(settings.max_tickets, PayerLimits().max_tickets),
    )
