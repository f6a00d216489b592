"""What a node's surfaces stand on: engine, books, jobs, money."""

from collections.abc import Callable, Mapping
from contextlib import AbstractAsyncContextManager, AsyncExitStack
from dataclasses import dataclass, replace
from importlib.metadata import version as distribution_version
from typing import Final

from network.chain.contracts import LivepeerChain
from network.chain.profiles import Profile as ChainProfile
from network.prices import fixed_usd
from network.runtime.clock import Clock
from network.runtime.database import Database, open_database
from network.units import ModelId, Wei
from network.wire.limits import Limits
from node.accounting.journal import MIGRATIONS, Journal
from node.accounting.ledger import Ledger
from node.accounting.model import Outcome
from node.accounting.pricing import PriceList
from node.api.bounds import limits_of
from node.api.health import HealthService
from node.api.metrics import Metrics
from node.api.recent import RecentJobs
from node.apps.calls import AppCalls
from node.apps.images import ImageDesk
from node.config.catalogue import Catalogue, profiles
from node.config.settings import (
    NodeSettings,
    database_url,
)
from node.discovery.advertiser import ModelOffer
from node.discovery.hardware import Hardware
from node.discovery.identity import Identity, open_identity
from node.engine.backend import Engine
from node.jobs.board import Policy
from node.jobs.model import JobReport
from node.jobs.record import log_job
from node.jobs.runner import REMEMBERED_ATTEMPTS, JobRunner
from node.payments.earning import Earning, open_earning
from node.payments.opening import ChainOpener, Payments, open_payments
from node.payments.rates import open_rates, price_list
from node.payments.usual import UsualJobs

#: Of the installed distribution; read from disk, and therefore once, at import.
VERSION: Final = distribution_version("limner")

EngineOpener = Callable[[NodeSettings, Catalogue, Clock], AbstractAsyncContextManager[Engine]]


@dataclass(frozen=True, slots=True)
class Core:
    """What the surfaces stand on. `payments` and `earning` are None off-chain."""

    settings: NodeSettings
    clock: Clock
    models: Catalogue
    identity: Identity
    engine: Engine
    journal: Journal
    runner: JobRunner
    #: Of apps of others.
    calls: AppCalls
    metrics: Metrics
    prices: PriceList
    hardware: Hardware
    recent: RecentJobs
    payments: Payments | None
    earning: Earning | None


async def open_core(
    stack: AsyncExitStack,
    settings: NodeSettings,
    clock: Clock,
    models: Catalogue,
    *,
    engine_opener: EngineOpener,
    chain_opener: ChainOpener,
    profile: ChainProfile | None,
) -> Core:
    # The worker first: it loads its libraries while the keystore is opened.
    engine = await stack.enter_async_context(engine_opener(settings, models, clock))
    identity = await open_identity(
        settings.data_dir, settings.keystore.passphrase, settings.keystore.passphrase_file
    )
    database = await stack.enter_async_context(
        open_database(
            database_url(settings), MIGRATIONS, synchronous=settings.database.synchronous
        )
    )
    journal = Journal(database, Ledger(overdraft=None if profile is None else Wei(0)), clock)
    await journal.close_interrupted()
    # Off-chain nobody's payment tells of them.
    known = await journal.recent_jobs(REMEMBERED_ATTEMPTS)
    capacities = {model.model_id: model.capacity for model in models.models}
    policy = Policy(settings.queue.max_waiting, settings.queue.max_wait_seconds)
    runner = JobRunner(engine, journal, clock, capacities=capacities, policy=policy)
    metrics = Metrics(VERSION, engine, runner.loads)
    calls = AppCalls(journal, clock)
    runner.remember(known)
    calls.remember(known)
    hardware = Hardware(clock)
    recent = RecentJobs(clock, hardware)
    metrics.tell_refusals(recent.refused)
    for observer in (log_job, metrics.job_ended, recent.job_ended):
        runner.observe(observer)
        calls.observe(observer)
    stack.callback(runner.follow_engine())
    stack.callback(engine.subscribe(metrics.engine_changed))
    await hardware.refresh()
    metrics.watch_gpus(lambda: hardware.latest)
    core = Core(
        settings=settings,
        clock=clock,
        models=models,
        identity=identity,
        engine=engine,
        journal=journal,
        runner=runner,
        calls=calls,
        metrics=metrics,
        prices=price_list(settings, models, fixed_usd(settings.usd_per_eth)),
        hardware=hardware,
        recent=recent,
        payments=None,
        earning=None,
    )
    if profile is None:
        return core
    return await _open_till(stack, core, profile, database, chain_opener)


async def _open_till(
    stack: AsyncExitStack,
    core: Core,
    profile: ChainProfile,
    database: Database,
    chain_opener: ChainOpener,
) -> Core:
    """Be paid by ticket from now on, going on where an earlier process ended."""
    await core.journal.restore_accounts()
    attempts = await core.journal.recent_attempts(REMEMBERED_ATTEMPTS)
    core.runner.remember(attempts)
    core.calls.remember(attempts)
    signer = core.identity.signer
    opened = open_payments(
        profile,
        core.settings,
        signer.address,
        core.models,
        database=database,
        clock=core.clock,
        opener=chain_opener,
    )
    payments = await stack.enter_async_context(opened)
    core.runner.observe(_learning(payments.till.usual))
    prices = core.prices
    earning = None
    if isinstance(payments.chain, LivepeerChain):
        rates = open_rates(core.settings, core.models, payments.chain.rpc, core.clock)
        prices = replace(prices, rates=await stack.enter_async_context(rates))
        redeeming = open_earning(
            payments.chain,
            payments.watch,
            payments.pending,
            signer,
            core.settings,
            database=database,
            clock=core.clock,
        )
        earning = await stack.enter_async_context(redeeming)
        core.metrics.watch_tickets(earning.report)
    return replace(core, prices=prices, payments=payments, earning=earning)


def _learning(usual: UsualJobs) -> Callable[[JobReport], None]:
    def saw(report: JobReport) -> None:
        # Only what was paid for: anybody may ask for anything.
        if report.ending.outcome is Outcome.DELIVERED:
            usual.saw(report.job.model_id, report.job.pixels)

    return saw


def health_of(core: Core) -> HealthService:
    first = core.models.models[0].model_id
    return HealthService(core.engine, core.hardware, VERSION, first)


def offers_of(core: Core) -> Mapping[ModelId, ModelOffer]:
    loads = core.runner.loads()
    healthy = core.engine.healthy()
    return {
        state.model_id: ModelOffer(
            warm=healthy and state.status == "ready",
            free=loads[state.model_id].free,
            in_use=loads[state.model_id].running,
        )
        for state in core.engine.models()
    }


def _limits(core: Core, model_id: ModelId) -> Limits | None:
    state = core.engine.model(model_id)
    return None if state is None else limits_of(core.settings.limits, state)


def image_desk(core: Core) -> ImageDesk:
    return ImageDesk(
        prices=core.prices,
        runner=core.runner,
        limits=lambda model_id: _limits(core, model_id),
        loras=core.models.loras,
        profiles=profiles(core.settings, core.models),
        deterministic=frozenset(
            model.model_id for model in core.models.models if model.deterministic
        ),
    )


def was_seen(core: Core, attempt_id: str) -> bool:
    return core.runner.was_seen(attempt_id) or core.calls.was_seen(attempt_id)


def is_under_way(core: Core, attempt_id: str) -> bool:
    return core.runner.is_under_way(attempt_id) or core.calls.is_under_way(attempt_id)
