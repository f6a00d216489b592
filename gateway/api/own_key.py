"""`GET /key`: what the key that asks may do, and what it spent."""

from collections.abc import Iterator, Mapping
from typing import Any, Final

from aiohttp.web import BaseRequest, StreamResponse

from gateway.api.answers import json_answer
from gateway.api.auth import Keys, authenticate
from gateway.api.exchange import Exchange
from gateway.dispatch.allowing import allowances_of
from gateway.keys import KeyGrant, price_text
from gateway.payments.allowance import Allowances, Period
from network.prices import USD, EthRates
from network.runtime.clock import Clock

PATH: Final = "/key"


class OwnKey:
    """The endpoint; wei are text, for they outgrow JSON's numbers."""

    def __init__(
        self, *, keys: Keys, allowances: Allowances, rates: EthRates, clock: Clock
    ) -> None:
        self._keys = keys
        self._allowances = allowances
        self._rates = rates
        self._clock = clock

    async def show(self, request: BaseRequest, exchange: Exchange) -> StreamResponse:
        grant = await authenticate(self._keys, request, exchange)
        now = self._clock.now()
        limits = list(self._limits(grant, now))
        left = min((int(limit["left_wei"]) for limit in limits), default=None)
        rate = self._rates.current
        in_dollars = rate is not None and rate.currency == USD
        own = allowances_of(grant)[0]
        return json_answer(
            {
                "id": grant.key_id,
                "name": grant.name,
                "team": None if grant.team is None else grant.team.name,
                "expires_at": grant.expires_at,
                "max_price": None if grant.max_price is None else price_text(grant.max_price),
                "spent_today_wei": str(self._allowances.spent(own.holder, Period.DAY, now)),
                "spent_this_month_wei": str(self._allowances.spent(own.holder, Period.MONTH, now)),
                # The least that any of the limits leaves; null without a limit.
                "left_wei": None if left is None else str(left),
                "limits": limits,
                "usd_per_eth": str(rate.per_eth) if rate is not None and in_dollars else None,
            }
        )

    def _limits(self, grant: KeyGrant, now: float) -> Iterator[dict[str, Any]]:
        for allowance in allowances_of(grant):
            held = self._allowances.held(allowance.holder)
            for period, limit in allowance.limits():
                spent = self._allowances.spent(allowance.holder, period, now)
                yield {
                    "of": "team" if allowance.holder.startswith("team ") else "key",
                    "period": period.value,
                    "limit_wei": str(limit),
                    "spent_wei": str(spent),
                    "held_wei": str(held),
                    "left_wei": str(max(limit - spent - held, 0)),
                    "resets_at": period.end(now),
                }


def own_key_schema() -> dict[str, Any]:
    """The body, for the published contract."""
    text, wei = {"type": "string"}, {"type": "string", "pattern": "^[0-9]+$"}
    maybe_text = {"type": ["string", "null"]}
    limit = {
        "of": {"enum": ["key", "team"]},
        "period": {"enum": [period.value for period in Period]},
        "limit_wei": wei,
        "spent_wei": wei,
        "held_wei": wei,
        "left_wei": wei,
        "resets_at": {"type": "number"},
    }
    fields: dict[str, Any] = {
        "id": text,
        "name": text,
        "team": maybe_text,
        "expires_at": {"type": ["number", "null"]},
        "max_price": maybe_text,
        "spent_today_wei": wei,
        "spent_this_month_wei": wei,
        "left_wei": {"type": ["string", "null"], "pattern": "^[0-9]+$"},
        "limits": {"type": "array", "items": _object(limit)},
        "usd_per_eth": maybe_text,
    }
    return {"title": "OwnKey", **_object(fields)}


def _object(fields: Mapping[str, Any]) -> dict[str, Any]:
    return {"type": "object", "required": list(fields), "properties": dict(fields)}
