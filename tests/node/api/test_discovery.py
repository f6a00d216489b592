"""What `GET /discovery` says of apps from several sources."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import orjson
from aiohttp.test_utils import make_mocked_request

from network.units import Address, Wei
from network.wire.session import Gpu
from node.api.discovery import DiscoveryService
from node.apps.model import App, Call, Listing, Offer, Price
from node.apps.shop import Shop

GPU = Gpu("GPU-1", "H100", 9, 0, 0, 80 * 1024**3)
MINE = Listing("text-to-image/a", "a-1", 2, 3, Price(Wei(2**62)), gpu=GPU, metadata="x")


@dataclass(frozen=True)
class Stub:
    told: Listing

    def listing(self) -> Listing:
        return self.told

    def offer(self, call: Call, payer: Address) -> Offer:
        raise NotImplementedError


@dataclass(frozen=True)
class Source:
    listings: Sequence[Listing]

    def find(self, route: str) -> App | None:
        return next((Stub(one) for one in self.listings if one.route == route), None)

    def all(self) -> list[App]:
        return [Stub(one) for one in self.listings]


async def told(*sources: Source, query: str = "") -> list[dict[str, Any]]:
    service = DiscoveryService(Shop(*sources), "https://node/prefix/")
    answer = await service.get_discovery(make_mocked_request("GET", f"/discovery{query}"))
    assert isinstance(answer.body, bytes)
    (entry,) = orjson.loads(answer.body)
    assert entry["address"] == "https://node/prefix/"
    found: list[dict[str, Any]] = entry["runners"]
    return found


async def test_an_app_is_told_whole() -> None:
    assert await told(Source([MINE])) == [
        {
            "url": "https://node/prefix/apps/a-1/app",
            "app": "text-to-image/a",
            "mode": "single-shot",
            "version": "",
            "metadata": "x",
            "capacity": 2,
            "capacity_used": 3,
            "capacity_available": 0,
            "gpu": {"id": "GPU-1", "name": "H100", "vram_mb": 81920},
            "price_info": {"price": 2**62, "currency": "wei", "unit": "fixed"},
        }
    ]


async def test_gpus_are_chosen_by_name_and_sessions_are_reserved_where_they_are() -> None:
    other = replace(MINE, app="b/b", route="b-1", mode="persistent", gpu=None, price=None)
    both = Source([MINE, other])
    assert [one["app"] for one in await told(both, query="?gpu=H100&gpu=L4")] == [MINE.app]
    assert await told(both, query="?gpu=H100&app=b/b") == []
    (reserved,) = await told(both, query="?app=b/b")
    assert reserved["url"] == "https://node/prefix/apps/b-1/session"
    assert "gpu" not in reserved
    assert "price_info" not in reserved


async def test_the_earlier_source_keeps_a_route_that_another_has_too() -> None:
    usurper = Source([replace(MINE, app="somebody/else")])
    assert [one["app"] for one in await told(Source([MINE]), usurper)] == [MINE.app]
    found = Shop(Source([MINE]), usurper).find("a-1")
    assert found is not None
    assert found.listing() is MINE
    assert Shop(Source([MINE]), usurper).find("nothing") is None
