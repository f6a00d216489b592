"""`GET /explain` at the admin port: who would get a request, and why not the others."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from fractions import Fraction
from typing import Any, Final, Protocol

import orjson
from aiohttp.web import BaseRequest, StreamResponse

from gateway.api.answers import json_answer
from gateway.api.bounds import Bounds
from gateway.api.exchange import Exchange, new_request_id
from gateway.api.quotes import shown_quote
from gateway.dispatch.foresight import Quote, Survey
from gateway.dispatch.hedging import HedgePlan
from gateway.dispatch.journey import Routing, need_of
from gateway.keys import KeyGrant, price_text
from gateway.orchestrators.explanation import explain
from gateway.orchestrators.selection import Need
from network.errors import ProblemError
from network.prices import NoRateError, Price, parse_price
from network.units import ModelId, format_price
from network.wire import problems
from network.wire.messages import TextToImageRequest

_FIELDS: Final = {
    "width": "width",
    "height": "height",
    "steps": "num_inference_steps",
    "count": "num_images_per_prompt",
}
_KNOWN: Final = frozenset({*_FIELDS, "model", "key_id", "max_price"})
#: An image like those that official clients ask for by default, within everybody's bounds.
_USUAL: Final = {"width": "512", "height": "512"}


class Foretelling(Protocol):
    """What `gateway.dispatch.Dispatcher` does for this resource."""

    @property
    def routing(self) -> Routing: ...

    def quote(self, request_id: str, buyer: KeyGrant, request: TextToImageRequest) -> Quote: ...

    def survey(self, need: Need) -> Survey: ...

    def hedge(self, survey: Survey) -> HedgePlan | None: ...


@dataclass(frozen=True, slots=True)
class Explanations:
    """The resource; one per gateway. `grant_of` finds a live key by its id."""

    dispatcher: Foretelling
    bounds: Bounds
    grant_of: Callable[[str], KeyGrant | None]
    #: How the gateway answers again what was asked before; None where it does not.
    repeats: Mapping[str, object] | None = None

    async def show(self, request: BaseRequest, exchange: Exchange) -> StreamResponse:
        """Raises ProblemError 400, 404, 422 for a request that could not be made."""
        del exchange
        asked = request.rel_url.query
        unknown = sorted(asked.keys() - _KNOWN)
        if unknown:
            known = ", ".join(sorted(_KNOWN))
            raise ProblemError(problems.bad_request(f"{unknown[0]!r} is none of {known}."))
        buyer = self._buyer(asked)
        wanted = self.bounds.parse(orjson.dumps(_fields(asked)))
        return json_answer(self.explain(buyer, wanted))

    def explain(self, buyer: KeyGrant, wanted: TextToImageRequest) -> dict[str, Any]:
        """The body of the answer; amounts as exact text."""
        routing = self.dispatcher.routing
        cap = self._cap(buyer, ModelId(wanted.model_id))
        survey = self.dispatcher.survey(need_of(wanted, cap))
        need = survey.ranking.need
        return {
            "request": {
                "model_id": need.model_id,
                "width": wanted.width,
                "height": wanted.height,
                "steps": need.steps,
                "count": wanted.num_images_per_prompt,
                "pixels": need.pixels,
            },
            "caps": {
                "key": _written(buyer.max_price),
                "gateway": _written(routing.max_price),
                "model": _written(routing.max_price_of(need.model_id)),
                "wei_per_pixel": None if cap is None else format_price(cap),
            },
            "time_value_wei_per_second": format_price(survey.ranking.policy.time_value),
            "outcome": self._outcome(buyer, wanted),
            "repeats": self.repeats,
            "hedge": _shown(self.dispatcher.hedge(survey)),
            "orchestrators": [
                verdict.as_json() for verdict in explain(survey.ranking, survey.others)
            ],
        }

    def _outcome(self, buyer: KeyGrant, wanted: TextToImageRequest) -> dict[str, Any]:
        """What a client would be told now."""
        try:
            quote = self.dispatcher.quote(new_request_id(), buyer, wanted)
        except ProblemError as error:
            problem = error.problem
            return {"status": problem.status, "code": problem.code, "message": problem.message}
        return {"status": 200, **shown_quote(quote)}

    def _cap(self, buyer: KeyGrant, model_id: ModelId) -> Fraction | None:
        try:
            return self.dispatcher.routing.cap(buyer, model_id)
        except NoRateError as error:
            problem = problems.payments_unavailable(30.0, f"No price cap is known: {error}")
            raise ProblemError(problem) from None

    def _buyer(self, asked: Mapping[str, str]) -> KeyGrant:
        key_id, price = asked.get("key_id"), asked.get("max_price")
        if key_id is None:
            return KeyGrant("", "nobody", max_price=None if price is None else _price(price))
        if price is not None:
            raise ProblemError(problems.bad_request("Name a key_id or a max_price, not both."))
        grant = self.grant_of(key_id)
        if grant is None:
            raise ProblemError(problems.not_found(f"live key {key_id!r}"))
        return grant


def _shown(plan: HedgePlan | None) -> dict[str, Any] | None:
    """None where late jobs are left alone."""
    if plan is None:
        return None
    after = plan.after_seconds
    return {
        "after_seconds": None if after is None else round(after, 3),
        "uri": plan.second or None,
        "reason": None if plan.objection is None else plan.objection.value,
    }


def _fields(asked: Mapping[str, str]) -> dict[str, object]:
    """Fields of a request for images."""
    given = {name: asked.get(name, _USUAL.get(name)) for name in _FIELDS}
    return {
        "prompt": "explain",
        "model_id": asked.get("model", ""),
        **{
            field: _count(name, text)
            for name, field in _FIELDS.items()
            if (text := given[name]) is not None
        },
    }


def _count(name: str, text: str) -> int:
    if not text.isascii() or not text.isdecimal() or len(text) > 6 or int(text) == 0:  # noqa: PLR2004
        raise ProblemError(problems.bad_request(f"{name} is a whole number from 1.", param=name))
    return int(text)


def _price(text: str) -> Price:
    try:
        return parse_price(text)
    except ValueError as error:
        raise ProblemError(
            problems.bad_request(f"max_price: {error}.", param="max_price")
        ) from None


def _written(price: Price | None) -> str | None:
    return None if price is None else price_text(price)
