"""The node's own models as apps: one call, one request for images."""

import hashlib
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import partial
from typing import Final

from aiohttp import hdrs, web
from typing_extensions import override

from network.capabilities import TEXT_TO_IMAGE_PIPELINE
from network.errors import Problem, ProblemError
from network.prices import NoRateError
from network.units import LARGEST_PRICE_TERM, Address, ModelId, Wei, fee, pixels_of
from network.wire import problems
from network.wire.headers import JOB_ID
from network.wire.messages import parse_request
from network.wire.session import Gpu
from node.apps.answers import json_answer, png_answer
from node.apps.images import Commission, ImageDesk
from node.apps.model import App, Call, Listing, Offer, Price, Sale
from node.apps.refusal import insufficient_capacity
from node.apps.shop import Apps
from node.jobs.board import Reason

_PNG: Final = "image/png"
_UNSAFE: Final = re.compile(r"[^0-9A-Za-z]+")
_READABLE_CHARS: Final = 40
_HOPELESS: Final = frozenset((Reason.UNKNOWN_MODEL, Reason.MODEL_FAILED, Reason.CLOSING))
_DISTINCT_DIGITS: Final = 8


def route_of(model_id: ModelId) -> str:
    """Return a model's place in URLs: readable, and another for every other id, at any start."""
    readable = _UNSAFE.sub("-", model_id).strip("-")[:_READABLE_CHARS].strip("-")
    distinct = hashlib.sha256(model_id.encode()).hexdigest()[:_DISTINCT_DIGITS]
    return f"{readable}-{distinct}" if readable else distinct


@dataclass(frozen=True, slots=True)
class ModelApp(App):
    """One model that is sold by the call."""

    desk: ImageDesk
    model_id: ModelId
    version: str
    gpu: Callable[[], Gpu | None]
    #: Whether payers pay by ticket, and prices therefore are told.
    is_paid: bool

    @property
    def name(self) -> str:
        """What clients ask for."""
        return f"{TEXT_TO_IMAGE_PIPELINE}/{self.model_id}"

    @property
    def may_be_had(self) -> bool:
        """Whether waiting for the model is of any use."""
        return self._is_priced() and (
            self.desk.runner.objection(self.model_id, 0, 0) not in _HOPELESS
        )

    @override
    def listing(self) -> Listing:
        load = self.desk.runner.loads()[self.model_id]
        return Listing(
            app=self.name,
            route=route_of(self.model_id),
            capacity=load.slots,
            in_use=load.slots - load.free,
            price=self._price(),
            version=self.version,
            gpu=self.gpu(),
        )

    @override
    def offer(self, call: Call, payer: Address) -> Offer:
        asked = parse_request(call.body)
        if asked.model_id not in ("", self.model_id):
            message = f"This app is {self.model_id}; leave model_id out, or call another app."
            raise ProblemError(problems.bad_request(message, param="model_id"))
        commission = self.desk.commission(asked, self.model_id, payer)
        is_png = _wants_png(call.request.headers.getall(hdrs.ACCEPT, ()))
        if is_png and asked.num_images_per_prompt > 1:
            raise ProblemError(_one_png_only())
        reason = self.desk.runner.objection(self.model_id, asked.width, asked.height)
        if reason is not None:
            raise insufficient_capacity(reason)
        return Offer(commission.quote.fee, partial(self._fulfil, commission, is_png=is_png))

    async def _fulfil(
        self, commission: Commission, sale: Sale, *, is_png: bool
    ) -> web.StreamResponse:
        order = self.desk.order(commission, sale.attempt_id, sale.fee)
        result = await self.desk.make(order, sale.pay)
        answer = png_answer(order, result) if is_png else await json_answer(order, result)
        # What the caller can ask for a receipt by.
        answer.headers[JOB_ID] = sale.attempt_id
        return answer

    def _is_priced(self) -> bool:
        try:
            self.desk.prices.highest(self.model_id)
        except NoRateError:
            return False
        return True

    def _price(self) -> Price | None:
        limits = self.desk.limits(self.model_id)
        if not self.is_paid or limits is None:
            return None
        width, height = limits.sides(limits.max_width)[1], limits.sides(limits.max_height)[1]
        largest = pixels_of(width, height, limits.max_images)
        most = fee(largest, self.desk.prices.highest(self.model_id))
        # A fee beyond what the wire carries is refused as one that nobody can pay.
        return Price(Wei(min(most, LARGEST_PRICE_TERM))) if most else None


class ModelApps(Apps):
    """Every model of the node, there as long as the node is."""

    def __init__(self, apps: Iterable[ModelApp]) -> None:
        self._apps = {route_of(app.model_id): app for app in apps}

    def has(self, app: str, route: str) -> bool:
        """Tell whether an app's name, or its route, is one of ours."""
        return route in self._apps or any(one.name == app for one in self._apps.values())

    @override
    def find(self, route: str) -> ModelApp | None:
        return self._apps.get(route)

    @override
    def all(self) -> Iterable[ModelApp]:
        # Clients take the first node that lists an app, and then no other.
        return [app for app in self._apps.values() if app.may_be_had]


def _wants_png(accepted: Iterable[str]) -> bool:
    """Tell whether a client takes a PNG and has not said that it takes JSON, or anything."""
    ranges = {
        one.partition(";")[0].strip().lower() for text in accepted for one in text.split(",")
    }
    return _PNG in ranges and ranges.isdisjoint(("application/json", "application/*", "*/*"))


def _one_png_only() -> Problem:
    return Problem(
        406,
        "Several images do not fit into one PNG; accept application/json, or ask for one image.",
        "invalid_request_error",
        "not_acceptable",
        param="num_images_per_prompt",
    )
