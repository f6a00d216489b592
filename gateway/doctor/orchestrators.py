"""Whether there is anybody to buy from, at a price that is allowed. Pure."""

from collections.abc import Mapping, Sequence
from fractions import Fraction
from typing import Any, Final

from network.findings import Finding, fail, ok, warn
from network.units import format_price

_READY: Final = "ready"

#: One orchestrator as `gateway.api.status.describe` tells it.
Described = Mapping[str, Any]


def judge_orchestrators(
    found: Sequence[Described], default_model: str, max_price: Fraction | None
) -> tuple[Finding, ...]:
    """Judge each, and then whether the default model can be bought."""
    if not found:
        detail = "none: nobody is bought from"
        return (
            fail(
                "orchestrators",
                detail,
                "name some in [[orchestrators]], or a source of them in [discovery]",
            ),
        )
    works = any(one["state"] == _READY for one in found)
    judged = tuple(_judge_one(one, has_other=works) for one in found)
    return (*judged, _judge_model(found, default_model, max_price))


def _judge_one(one: Described, *, has_other: bool) -> Finding:
    what = str(one["uri"])
    if one["state"] == _READY:
        models = ", ".join(str(model["id"]) for model in one["models"][:5])
        return ok(what, f"offers {models}" if models else "offers no model")
    judge = warn if has_other else fail
    problem = one["problem"] or one["last_fault"] or "gives no terms"
    return judge(what, f"{one['state']}: {problem}", "see that it runs; limner-node doctor there")


def _judge_model(
    found: Sequence[Described], default_model: str, max_price: Fraction | None
) -> Finding:
    what = f"offers of {default_model}"
    offers = [
        model
        for one in found
        if one["state"] == _READY
        for model in one["models"]
        if model["id"] == default_model
    ]
    if not offers:
        others = sorted({str(model["id"]) for one in found for model in one["models"]})
        instead = f"; there are {', '.join(others[:8])}" if others else ""
        return fail(what, f"none{instead}", "set default_model to one that is offered")
    prices = [Fraction(model["price"]) for model in offers if model["price"] is not None]
    if not prices:
        return ok(what, f"{len(offers)}, none of which names a price")
    cheapest = min(prices)
    if max_price is not None and cheapest > max_price:
        return fail(
            what,
            f"the cheapest asks {format_price(cheapest)} wei per pixel, and routing.max_price is "
            f"{format_price(max_price)}: everybody is excluded",
            "raise routing.max_price, or find cheaper orchestrators",
        )
    allowed = sum(max_price is None or price <= max_price for price in prices)
    detail = (
        f"{allowed} of {len(offers)} may be bought, from {format_price(cheapest)} wei per pixel"
    )
    if not any(model["warm"] for model in offers):
        return warn(what, f"{detail}; none has it in memory", "the first images take longer")
    return ok(what, detail)
