"""What a model costs and how long it takes, for a buyer who only looks."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from fractions import Fraction
from typing import Final, Protocol

from gateway.dispatch.journey import Buyer, Routing
from gateway.orchestrators.offer import Offer
from gateway.orchestrators.selection import FEMTOSECONDS, Need, Policy, Prospect, Reason, rank
from network.prices import NoRateError
from network.runtime.clock import Clock
from network.units import ModelId, Pixels

#: What is looked for: an image of Livepeer's default size and steps.
_PIXELS: Final = Pixels(1024 * 576)
_STEPS: Final = 50
#: Seconds for which one look serves everybody with the same price cap.
_FRESH: Final = 1.0
_MOST_KEPT: Final = 1024
#: The first of these that holds of anybody is why nobody takes a request, the most hopeful first.
_REASONS: Final = (
    Reason.BUSY,
    Reason.UNPRICED,
    Reason.ABOVE_CAP,
    Reason.SUSPENDED,
    Reason.STALE,
    Reason.UNPAYABLE,
    Reason.UNREACHABLE,
    Reason.INCOMPATIBLE,
    Reason.OUTDATED,
    Reason.BLOCKED,
)


@dataclass(frozen=True, slots=True)
class Showing:
    """One model, as a request for it would fare now."""

    #: Empty where somebody would take it.
    reason: str
    #: Whether an orchestrator that may be paid has it loaded.
    warm: bool
    orchestrators: int
    #: Free places, all of them together.
    free: int
    #: Wei per pixel of whoever would be chosen, else of the cheapest; None where none is known.
    price: Fraction | None
    #: Seconds before the first step.
    overhead: float
    #: Seconds for a pixel and step; None where nothing was measured.
    pace: float | None


class Known(Protocol):
    """What the directory knows (`gateway.orchestrators.directory.Directory`)."""

    def glance(self, model_id: ModelId) -> Collection[Prospect]: ...

    def offer(self, uri: str) -> Offer | None: ...


class Showcase:
    """One per gateway. To look changes nothing: no price is asked for, no model remembered."""

    def __init__(self, known: Known, policy: Policy, routing: Routing, clock: Clock) -> None:
        self._known = known
        self._policy = policy
        self._routing = routing
        self._clock = clock
        self._kept: dict[tuple[ModelId, Fraction | None], tuple[float, Showing]] = {}

    def look(self, model_id: ModelId, buyer: Buyer) -> Showing:
        """The model at the prices that the buyer may pay."""
        try:
            cap = self._routing.cap(buyer, model_id)
        except NoRateError:
            # Nothing is bought while the cap's worth is not known.
            cap = Fraction(-1)
        now = self._clock.monotonic()
        kept = self._kept.get((model_id, cap))
        if kept is not None and now - kept[0] < _FRESH:
            return kept[1]
        if len(self._kept) >= _MOST_KEPT:
            self._kept.clear()
        prospects = self._known.glance(model_id)
        warm = {one.uri: self._is_warm(one.uri, model_id) for one in prospects}
        need = Need(model_id, _PIXELS, _STEPS, cap)
        shown = showing(need, prospects, self._policy, now, warm)
        self._kept[model_id, cap] = (now, shown)
        return shown

    def _is_warm(self, uri: str, model_id: ModelId) -> bool:
        offer = self._known.offer(uri)
        model = None if offer is None else offer.models.get(model_id)
        return model is not None and model.warm


def showing(
    need: Need,
    prospects: Collection[Prospect],
    policy: Policy,
    now: float,
    warm: Mapping[str, bool],
) -> Showing:
    """`warm` tells by URI who has the model loaded; `now` is monotonic seconds. Pure."""
    ranking = rank(need, prospects, policy, now)
    best = ranking.best
    usable = [one for one in prospects if one.barred is None]
    shown = best.prospect if best else min(usable, key=_price_and_uri, default=None)
    reasons = ranking.reasons()
    measured = shown is not None and shown.pace != policy.unmeasured_pace
    return Showing(
        reason="" if best else _why(reasons),
        warm=any(warm[one.uri] for one in usable),
        orchestrators=len(usable),
        free=sum(max(one.free, 0) for one in usable),
        price=None if shown is None else shown.price,
        overhead=0.0 if shown is None else shown.overhead / FEMTOSECONDS,
        pace=shown.pace / FEMTOSECONDS if shown is not None and measured else None,
    )


def _price_and_uri(one: Prospect) -> tuple[Fraction, str]:
    return one.price, one.uri


def _why(reasons: Collection[Reason]) -> str:
    return next((one.value for one in _REASONS if one in reasons), Reason.NOT_OFFERED.value)
