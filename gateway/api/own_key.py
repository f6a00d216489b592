"""`GET /key`: what the key that asks may do, and what it spent."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Final

from aiohttp.web import BaseRequest, StreamResponse

from gateway.api.answers import json_answer
from gateway.api.auth import Keys, authenticate
from gateway.api.exchange import Exchange
from gateway.dispatch.allowing import allowances_of
from gateway.keys import price_text
from gateway.payments.allowance import Allowance, Allowances, Limit, Period, Unit
from network.dollars import AttoUsd, format_usd
from network.prices import USD, EthRates
from network.runtime.clock import Clock

PATH: Final = "/key"


class OwnKey:
    """The endpoint; wei are text, for they outgrow JSON's numbers, and dollars are exact decimals."""

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
        standings = [
            self._standing(allowance, limit, now)
            for allowance in allowances_of(grant)
            for limit in allowance.limits()
        ]
        rate = self._rates.current
        in_dollars = rate is not None and rate.currency == USD
        own = partial(self._allowances.spent, allowances_of(grant)[0].holder)
        return json_answer(
            {
                "id": grant.key_id,
                "name": grant.name,
                "team": None if grant.team is None else grant.team.name,
                "expires_at": grant.expires_at,
                "max_price": None if grant.max_price is None else price_text(grant.max_price),
                "spent_today_wei": str(own(Period.DAY, now)),
                "spent_this_month_wei": str(own(Period.MONTH, now)),
                "spent_today_usd": _text(Unit.USD, own(Period.DAY, now, Unit.USD)),
                "spent_this_month_usd": _text(Unit.USD, own(Period.MONTH, now, Unit.USD)),
                # The least that any of the limits in this unit leaves; null without one.
                "left_wei": _least_left(standings, Unit.WEI),
                "left_usd": _least_left(standings, Unit.USD),
                "limits": [_described(one) for one in standings],
                "usd_per_eth": str(rate.per_eth) if rate is not None and in_dollars else None,
            }
        )

    def _standing(self, allowance: Allowance, limit: Limit, now: float) -> "_Standing":
        holder, unit = allowance.holder, limit.unit
        return _Standing(
            of="team" if holder.startswith("team ") else "key",
            limit=limit,
            spent=self._allowances.spent(holder, limit.period, now, unit),
            held=self._allowances.held(holder, unit),
            resets_at=limit.period.end(now),
        )


@dataclass(frozen=True, slots=True)
class _Standing:
    """A limit and what became of it; amounts in its unit."""

    of: str
    limit: Limit
    spent: int
    held: int
    resets_at: float

    @property
    def left(self) -> int:
        return max(self.limit.amount - self.spent - self.held, 0)


def _described(one: _Standing) -> dict[str, Any]:
    unit = one.limit.unit
    amounts = {"limit": one.limit.amount, "spent": one.spent, "held": one.held, "left": one.left}
    return {
        "of": one.of,
        "period": one.limit.period.value,
        **{f"{name}_{unit.value}": _text(unit, amount) for name, amount in amounts.items()},
        "resets_at": one.resets_at,
    }


def _least_left(standings: Sequence[_Standing], unit: Unit) -> str | None:
    left = min((one.left for one in standings if one.limit.unit is unit), default=None)
    return None if left is None else _text(unit, left)


def _text(unit: Unit, amount: int) -> str:
    return str(amount) if unit is Unit.WEI else format_usd(AttoUsd(amount))


def own_key_schema() -> dict[str, Any]:
    """The body, for the published contract."""
    text, wei, usd = {"type": "string"}, _amount(Unit.WEI), _amount(Unit.USD)
    maybe_text = {"type": ["string", "null"]}
    fields: dict[str, Any] = {
        "id": text,
        "name": text,
        "team": maybe_text,
        "expires_at": {"type": ["number", "null"]},
        "max_price": maybe_text,
        "spent_today_wei": wei,
        "spent_this_month_wei": wei,
        "spent_today_usd": usd,
        "spent_this_month_usd": usd,
        "left_wei": {**wei, **maybe_text},
        "left_usd": {**usd, **maybe_text},
        "limits": {"type": "array", "items": {"oneOf": [_limit(unit) for unit in Unit]}},
        "usd_per_eth": maybe_text,
    }
    return {"title": "OwnKey", **_object(fields)}


def _limit(unit: Unit) -> dict[str, Any]:
    amounts = ("limit", "spent", "held", "left")
    return _object(
        {
            "of": {"enum": ["key", "team"]},
            "period": {"enum": [period.value for period in Period]},
            **{f"{name}_{unit.value}": _amount(unit) for name in amounts},
            "resets_at": {"type": "number"},
        }
    )


def _amount(unit: Unit) -> dict[str, Any]:
    whole = "^[0-9]+$"
    return {"type": "string", "pattern": whole if unit is Unit.WEI else r"^[0-9]+(\.[0-9]+)?$"}


def _object(fields: Mapping[str, Any]) -> dict[str, Any]:
    return {"type": "object", "required": list(fields), "properties": dict(fields)}
