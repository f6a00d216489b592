"""GET /discovery: what is sold here by the call (Livepeer wire, 7.2)."""

from collections.abc import Collection
from dataclasses import dataclass
from typing import Any

import orjson
from aiohttp import web

from network.wire.session import Gpu
from node.apps.model import Listing
from node.apps.shop import Shop

_MEBIBYTE = 1024 * 1024


@dataclass(frozen=True, slots=True)
class DiscoveryService:
    """Tells clients and signers which apps there are, and what a call of each costs at most."""

    shop: Shop
    service_uri: str

    async def get_discovery(self, request: web.Request) -> web.Response:
        """Answer with this node alone; `app` and `gpu`, each given once or more, choose among its apps."""
        apps = request.query.getall("app", ())
        gpus = request.query.getall("gpu", ())
        runners = [
            _told(listing, self.service_uri)
            for listing in self.shop.listings()
            if _is_wanted(listing, apps, gpus)
        ]
        body = [{"address": self.service_uri, "runners": runners}]
        return web.Response(body=orjson.dumps(body), content_type="application/json")


def app_url(service_uri: str, route: str) -> str:
    """Return where an app is called."""
    return f"{service_uri.rstrip('/')}/apps/{route}/app"


def _is_wanted(listing: Listing, apps: Collection[str], gpus: Collection[str]) -> bool:
    gpu = "" if listing.gpu is None else listing.gpu.name
    return (not apps or listing.app in apps) and (not gpus or gpu in gpus)


def _told(listing: Listing, service_uri: str) -> dict[str, Any]:
    url = app_url(service_uri, listing.route)
    if listing.mode == "persistent":
        url = f"{url.removesuffix('/app')}/session"
    told: dict[str, Any] = {
        "url": url,
        "app": listing.app,
        "mode": listing.mode,
        "version": listing.version,
        "metadata": listing.metadata,
        "capacity": listing.capacity,
        "capacity_used": listing.in_use,
        "capacity_available": max(0, listing.capacity - listing.in_use),
    }
    if listing.gpu is not None:
        told["gpu"] = _gpu(listing.gpu)
    if listing.price is not None:
        told["price_info"] = {
            "price": listing.price.wei,
            "currency": "wei",
            "unit": listing.price.unit,
        }
    return told


def _gpu(gpu: Gpu) -> dict[str, object]:
    return {"id": gpu.id, "name": gpu.name, "vram_mb": gpu.memory_total // _MEBIBYTE}
