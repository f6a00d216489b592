"""One orchestrator as the directory keeps it, and what a request may expect of it."""

import asyncio
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from fractions import Fraction
from math import inf
from types import MappingProxyType
from typing import Final

from gateway.orchestrators.inquiry import Inquiry
from gateway.orchestrators.offer import ModelOffer, Offer
from gateway.orchestrators.pace import Beliefs, size_class
from gateway.orchestrators.selection import FEMTOSECONDS, Policy, Prospect, Reason
from gateway.orchestrators.standing import Delivery, Standing
from gateway.orchestrators.terms import Terms
from network.capabilities import Mismatch, compatible, job_capabilities
from network.link.news import News
from network.units import ModelId

_USUAL_SIZE: Final = size_class(512 * 512)


@dataclass(frozen=True, slots=True)
class OrchestratorState:
    """One orchestrator as an operator wants to see it."""

    uri: str
    offer: Offer | None
    #: Why the last refresh failed, or why its offer cannot be used; empty if neither.
    problem: str
    #: Seconds since the last good refresh; None without any.
    age: float | None
    in_flight: int
    failures: int
    #: Seconds until it may be used again; 0 when it may be used now.
    paused_for: float
    last_fault: str
    #: Why models of it cannot be paid for.
    objections: Mapping[ModelId, str] = field(default_factory=dict)
    #: Who lists it.
    sources: tuple[str, ...] = ()
    #: Why nothing of it is bought although it answers; empty if it may be.
    passed_over: str = ""
    #: The kind of its last fault: "unreachable", "faulty", "wrong"; empty without any.
    fault: str = ""
    #: Jobs of ours it may have at a time, as a newcomer or after a pause; None without a limit.
    allowance: int | None = None


@dataclass(slots=True)
class Peer:
    """What is known of an orchestrator; times are monotonic seconds."""

    uri: str
    inquiry: Inquiry
    offer: Offer | None = None
    standing: Standing = field(default_factory=Standing)
    problem: str = ""
    is_reachable: bool = True
    refresh_failures: int = 0
    asked_at: float = float("-inf")
    pressed_until: float = float("-inf")
    in_flight: Counter[ModelId] = field(default_factory=Counter)
    #: Those of our jobs that are on their way to it or there.
    sent: Counter[ModelId] = field(default_factory=Counter)
    #: Free places by model: as advertised, less our jobs since.
    places: dict[ModelId, int] = field(default_factory=dict)
    #: Models that were cold when it was asked last, and delivered since.
    warmed: set[ModelId] = field(default_factory=set)
    #: Why a model's jobs cannot run there, "" if they can; since the last refresh.
    mismatches: dict[ModelId, str] = field(default_factory=dict)
    #: Why models cannot be paid for, as of the last refresh.
    objections: Mapping[ModelId, str] = field(default_factory=dict)
    wake: asyncio.Event = field(default_factory=asyncio.Event)
    lock: asyncio.Lock = field(default_factory=asyncio.Lock)
    #: What keeps its offer fresh, while that runs.
    keeper: "asyncio.Task[None] | None" = None
    #: What its last push called its terms.
    terms: str = ""

    def free(self, model_id: ModelId) -> int:
        """Places for jobs of ours: as advertised, and no more than it has earned."""
        places, allowance = self.places.get(model_id, 0), self.standing.allowance
        return places if allowance is None else min(places, allowance - self.in_flight.total())

    def told(self, news: News) -> bool:
        """Take a push; whether the peer must be asked for its terms anew."""
        is_changed, self.terms = news.terms != self.terms, news.terms
        if is_changed:
            self.inquiry.start_over()
        if self.offer is None:
            return is_changed
        models = dict(self.offer.models)
        for model_id, model in self.offer.models.items():
            now = news.models.get(model_id)
            if now is not None:
                models[model_id] = replace(model, warm=now.warm, free=now.free)
                self.warmed.discard(model_id)
                # What others leave to us, less our own: jobs that are on their way there or back
                # stand in neither of the node's numbers, or in both of one moment.
                self.places[model_id] = now.free + now.ours - self.in_flight[model_id]
        self.offer = replace(self.offer, models=MappingProxyType(models))
        return is_changed

    def state(self, now: float) -> OrchestratorState:
        """What an operator is shown."""
        offer, standing = self.offer, self.standing
        return OrchestratorState(
            uri=self.uri,
            offer=offer,
            problem=self.problem,
            age=None if offer is None else now - offer.refreshed_at,
            in_flight=self.in_flight.total(),
            failures=standing.failures,
            paused_for=max(standing.suspended_until - now, 0.0),
            last_fault=standing.reason,
            fault="" if standing.fault is None else standing.fault.value,
            allowance=standing.allowance,
            objections=self.objections,
        )

    def dismiss(self) -> None:
        """Ask it no more."""
        if self.keeper is not None:
            self.keeper.cancel()
            self.keeper = None


@dataclass(frozen=True, slots=True)
class Viewpoint:
    """What this gateway makes of an offer. `needs_quote`: it pays by ticket, for quoted prices only."""

    policy: Policy
    version: str
    needs_quote: bool
    terms: Terms
    beliefs: Beliefs

    def prospect(self, peer: Peer, model_id: ModelId) -> Prospect | None:
        """What `selection` weighs; None where it does not offer the model."""
        offer = peer.offer
        model = None if offer is None else offer.models.get(model_id)
        if offer is None or model is None:
            return None
        barred, detail = self._bar(peer, offer, model_id, model)
        price = Fraction(0) if model.price is None else model.price
        pace, paces = self._pace(peer, model_id)
        is_cold = not (model.warm or model_id in peer.warmed)
        return Prospect(
            uri=peer.uri,
            price_numerator=price.numerator,
            price_denominator=price.denominator,
            free=peer.free(model_id),
            pace=pace,
            paces=paces,
            overhead=self._overhead(peer, offer, model_id, is_cold=is_cold),
            is_cold=is_cold,
            # What was remembered is believed until the orchestrator was asked once.
            fresh_until=inf if offer.is_remembered else offer.refreshed_at + self.policy.max_age,
            suspended_until=peer.standing.suspended_until,
            barred=barred,
            detail=detail or peer.standing.reason,
        )

    def learn(self, peer: Peer, job: Delivery) -> None:
        """What a delivered job, which the peer's standing counts already, tells of all others."""
        model_id = job.model_id
        if job.was_cold:
            peer.warmed.add(model_id)
            self.beliefs.learn_load(peer.uri, model_id, peer.standing.loads[model_id])
        pace = peer.standing.pace(model_id, job.size)
        if pace is not None:
            self.beliefs.learn_pace(peer.uri, model_id, job.size, pace)

    def _pace(self, peer: Peer, model_id: ModelId) -> tuple[int, tuple[int, ...]]:
        """Of its usual size, and of all where these differ."""
        known = peer.standing.paces.get(model_id)
        paces = self.beliefs.paces(model_id) if known is None else known.table
        return paces[_USUAL_SIZE], paces if len(set(paces)) > 1 else ()

    def _overhead(self, peer: Peer, offer: Offer, model_id: ModelId, *, is_cold: bool) -> int:
        way = round(offer.round_trip * FEMTOSECONDS)
        if not is_cold:
            return way
        load = peer.standing.loads.get(model_id)
        return way + (self.beliefs.load(model_id) if load is None else load)

    def _bar(
        self, peer: Peer, offer: Offer, model_id: ModelId, model: ModelOffer
    ) -> tuple[Reason | None, str]:
        if not peer.is_reachable or (offer.is_remembered and peer.problem):
            return Reason.UNREACHABLE, peer.problem
        objected = self.terms.objection(offer)
        if objected is not None:
            return objected
        mismatch = peer.mismatches.get(model_id)
        if mismatch is None:
            match = compatible(job_capabilities(model_id, self.version), offer.capabilities)
            mismatch = match.reason if isinstance(match, Mismatch) else ""
            peer.mismatches[model_id] = mismatch
        if mismatch:
            return Reason.INCOMPATIBLE, mismatch
        objection = peer.objections.get(model_id)
        if objection is not None:
            return Reason.UNPAYABLE, objection
        is_known = model.exact or (model.price is not None and not self.needs_quote)
        return (None, "") if is_known else (Reason.UNPRICED, "")
