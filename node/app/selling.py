"""What a node sells by the call: its own models, and apps of others."""

from collections.abc import Callable, Collection
from contextlib import AbstractAsyncContextManager
from fractions import Fraction

import structlog
from aiohttp import web

from network.capabilities import TEXT_TO_IMAGE_PIPELINE
from network.prices import USD, Rate
from network.runtime.supervisor import Supervisor
from node.api.apps import AppService, app_routes
from node.api.credentials import Doorkeeper
from node.api.discovery import DiscoveryService
from node.api.runner_opening import open_runners
from node.api.runners import RunnerService
from node.app.core import VERSION, Core, was_seen
from node.apps.addresses import Endpoint
from node.apps.challenges import Challenger
from node.apps.images import ImageDesk
from node.apps.ours import ModelApp, ModelApps
from node.apps.shop import Shop
from node.discovery.advertiser import Access
from node.discovery.sessions import Sessions
from node.payments.till import Till

log = structlog.get_logger(__name__)


def _usd_per_eth(rate: Rate | None) -> Fraction | None:
    return rate.per_eth if rate is not None and rate.currency == USD else None


def open_others_apps(
    supervisor: Supervisor, core: Core, models: ModelApps, uri: str, own: Collection[Endpoint]
) -> AbstractAsyncContextManager[RunnerService | None]:
    ids = frozenset[str](model.model_id for model in core.models.models)
    names = ids | {f"{TEXT_TO_IMAGE_PIPELINE}/{model_id}" for model_id in ids}
    return open_runners(
        core.settings.runners,
        core.calls,
        supervisor,
        core.clock,
        service_uri=uri,
        own=own,
        is_taken=lambda app, route: app in names or models.find(route) is not None,
        usd_per_eth=lambda: _usd_per_eth(core.prices.rates.current),
        unpayable=None if core.payments is None else core.payments.till.unpayable,
        sessions=core.payments is None and not core.settings.allowed_gateways,
        max_body_bytes=core.settings.limits.max_body_bytes,
        body_timeout=core.settings.server.body_timeout_seconds,
    )


def model_apps(core: Core, desk: ImageDesk) -> ModelApps:
    models = ModelApps(
        ModelApp(
            desk,
            model.model_id,
            version=VERSION,
            gpu=lambda: next((reading.gpu for reading in core.hardware.latest), None),
            is_paid=core.payments is not None,
        )
        for model in core.models.models
    )
    if core.payments is not None:
        _warn_of_unpayable(core.payments.till, models)
    return models


def routes_of_apps(
    core: Core,
    shop: Shop,
    *,
    doorkeeper: Doorkeeper,
    access: Access,
    sessions: Sessions,
    uri: str,
) -> Callable[[web.Application], None]:
    till = None if core.payments is None else core.payments.till
    challenger = None
    if till is not None:
        challenger = Challenger(till, sessions, uri, core.identity.signer.address, core.clock)
    service = AppService(
        shop=shop,
        doorkeeper=doorkeeper,
        access=access,
        till=till,
        challenger=challenger,
        was_seen=lambda attempt_id: was_seen(core, attempt_id),
        service_uri=uri,
        max_body_bytes=core.settings.limits.max_body_bytes,
        body_timeout=core.settings.server.body_timeout_seconds,
    )
    return app_routes(service, DiscoveryService(shop, uri), core.metrics.refused)


def _warn_of_unpayable(till: Till, models: ModelApps) -> None:
    for app in models.all():
        price = app.listing().price
        reason = "" if price is None else till.unpayable(price.wei)
        if reason:
            log.warning("the largest requests cannot be paid", app=app.name, why=reason)
