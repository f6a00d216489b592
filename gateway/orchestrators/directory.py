"""The orchestrators we know, kept fresh in the background and never in a request's way.

Requests read what is known at that moment. Between two refreshes the free places are counted on by
our own jobs, and a refusal for want of capacity is believed at once.
"""

import asyncio
import random
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Final

import structlog

from gateway.orchestrators.answers import OrchestratorFailed, OrchestratorUnreachable
from gateway.orchestrators.appraising import Appraiser, appraise
from gateway.orchestrators.client import OrchestratorClient
from gateway.orchestrators.inquiry import Inquiry
from gateway.orchestrators.market import Market, Markets
from gateway.orchestrators.offer import Offer
from gateway.orchestrators.pace import Beliefs
from gateway.orchestrators.peer import OrchestratorState, Peer, Viewpoint
from gateway.orchestrators.selection import (
    Candidate,
    Need,
    Policy,
    Prospect,
    Reason,
    Refusal,
    pace_of,
)
from gateway.orchestrators.standing import (
    Delivery,
    Fault,
    Pausing,
    Standing,
    after_failure,
    after_overdue,
    after_sign_of_life,
    after_success,
    has_moved,
    newcomer,
)
from gateway.orchestrators.terms import Terms
from network.errors import WireError
from network.link.news import News
from network.runtime.clock import Clock
from network.units import ModelId
from network.wire.codec import OrchestratorInfo

_log = structlog.get_logger(__name__)
_TOKEN_LIFE_USED: Final = 0.9


@dataclass(frozen=True, slots=True)
class Refreshing:
    """How offers are kept fresh. Times in seconds."""

    interval: float = 5.0
    #: Instead of `interval` while requests wait for a free place there.
    busy_interval: float = 0.5
    #: An orchestrator is never asked more often than this.
    least_interval: float = 0.1
    #: An orchestrator that does not answer is asked less and less often, up to this interval,
    longest_interval: float = 15.0
    #: or a longer one where so many do not answer that together they would be asked more often than
    #: this. With calls of 2.5 s they take a quarter of what `parallel` allows.
    silent_interval: float = 0.3
    #: However many orchestrators there are, together they are asked no more often than this.
    least_spacing: float = 0.02
    #: How many orchestrators are asked at the same time.
    parallel: int = 32
    #: Exact prices are asked for at most this many models of one orchestrator.
    priced_models: int = 8
    #: How often an orchestrator is asked for all its models.
    discovery_interval: float = 60.0

    def pause(self, peers: int, max_age: float) -> float:
        """Between two questions to one of `peers` that answers; its offer must not be too old by then."""
        return max(self.interval, min(peers * self.least_spacing, max_age / 2))

    def pause_of_silent(self, usual: float, failures: int, silent: int) -> float:
        """The same for one of `silent` that do not answer, after so many failures in a row."""
        longest = max(usual, self.longest_interval, silent * self.silent_interval)
        return float(min(usual * 2.0 ** min(failures - 1, 16), longest))


class Directory:
    """Run `run` under the supervisor; all else that requests use is synchronous and cheap."""

    def __init__(
        self,
        *,
        client: OrchestratorClient,
        policy: Policy,
        refreshing: Refreshing,
        pausing: Pausing,
        version: str,
        clock: Clock,
        randomness: random.Random,
        models: Sequence[ModelId] = (),
        appraiser: Appraiser | None = None,
        terms: Terms = Terms(),  # noqa: B008  immutable
    ) -> None:
        """`models` are those whose exact prices matter from the start, e.g. the default model."""
        self._peers: dict[str, Peer] = {}
        #: Listed by nobody any more, but with jobs of ours.
        self._leaving: dict[str, Peer] = {}
        self._lists: dict[str, frozenset[str]] = {}
        self._client = client
        self._refreshing = refreshing
        self._pausing = pausing
        self._viewpoint = Viewpoint(
            policy,
            version,
            needs_quote=appraiser is not None,
            terms=terms,
            beliefs=Beliefs(policy.unmeasured_pace, policy.cold_load),
        )
        self._terms = terms
        #: Offers of an earlier process, of orchestrators that nobody has listed yet.
        self._remembered: dict[str, Offer] = {}
        self._clock = clock
        self._randomness = randomness
        self._appraiser = appraiser
        #: Models somebody asked for; their exact prices come first.
        self._wanted: dict[ModelId, None] = dict.fromkeys(models)
        self._markets = Markets(policy)
        self._slots = asyncio.Semaphore(refreshing.parallel)
        self._unasked: set[str] = set()
        self._all_asked = asyncio.Event()
        self._all_asked.set()
        self._keepers: asyncio.TaskGroup | None = None
        self._listeners: list[Callable[[], None]] = []

    # Who is known

    def list_from(
        self, source: str, uris: Collection[str], *, are_strangers: bool = False
    ) -> None:
        """Replace what `source` lists. New ones are asked at once; strangers have to prove themselves.

        Those that no source lists any more get no new jobs, and leave when theirs are over.
        """
        self._lists[source] = frozenset(uris)
        listed = frozenset[str]().union(*self._lists.values())
        new = [uri for uri in dict.fromkeys(uris) if uri not in self._peers]
        # Those that answered an earlier process first: they most likely do so now.
        for uri in sorted(new, key=lambda uri: uri not in self._remembered):
            self._admit(uri, is_stranger=are_strangers)
        for uri in self._peers.keys() - listed:
            self._dismiss(uri)
        self._changed()

    def sources(self, uri: str) -> tuple[str, ...]:
        """Who lists it, in order of name."""
        return tuple(sorted(name for name, uris in self._lists.items() if uri in uris))

    def uris(self) -> tuple[str, ...]:
        """Everybody who is listed."""
        return tuple(self._peers)

    def remember(self, offers: Iterable[Offer]) -> None:
        """What an earlier process knew, for those that will be listed: used until they are asked."""
        self._remembered = {offer.uri: offer for offer in offers}

    def _admit(self, uri: str, *, is_stranger: bool) -> None:
        peer = self._leaving.pop(uri, None)
        if peer is None:
            settings = self._refreshing
            inquiry = Inquiry(uri, settings.discovery_interval, settings.priced_models)
            standing = newcomer() if is_stranger else Standing()
            peer = Peer(uri, inquiry, self._remembered.pop(uri, None), standing)
            if peer.offer is not None:
                # However many places were free then, a look tells how many are now.
                peer.places = {name: max(one.free, 1) for name, one in peer.offer.models.items()}
            self._unasked.add(uri)
            self._all_asked.clear()
        self._peers[uri] = peer
        self._reassess(peer)
        if self._keepers is not None:
            self._keep(peer, self._keepers)

    def _dismiss(self, uri: str) -> None:
        peer = self._peers.pop(uri)
        peer.dismiss()
        self._markets.dismiss(uri)
        self._viewpoint.beliefs.forget(uri)
        self._note_asked(uri)
        if peer.in_flight.total():
            self._leaving[uri] = peer

    def _known(self, uri: str) -> Peer | None:
        return self._peers.get(uri) or self._leaving.get(uri)

    # Background

    async def run(self) -> None:
        """Keep every offer fresh, for ever. Cancel to stop."""
        try:
            async with asyncio.TaskGroup() as group:
                self._keepers = group
                for peer in self._peers.values():
                    self._keep(peer, group)
                await asyncio.Event().wait()  # others may be listed later
        finally:
            self._keepers = None

    def _keep(self, peer: Peer, group: asyncio.TaskGroup) -> None:
        peer.keeper = group.create_task(self._keep_fresh(peer))

    async def first_round(self, timeout_seconds: float) -> None:
        """Return when every orchestrator has answered or failed once, or the time is over."""
        try:
            async with asyncio.timeout(timeout_seconds):
                await self._all_asked.wait()
        except TimeoutError:
            _log.warning("orchestrators_slow", waiting_for=sorted(self._unasked))

    async def refresh(self, uri: str, model_id: ModelId, seen_at: float) -> None:
        """Ask one orchestrator now, unless it has answered after `seen_at` (monotonic seconds).

        For a request that was refused because our knowledge is old.
        """
        peer = self._known(uri)
        if peer is None:
            return
        self._wanted[model_id] = None
        async with peer.lock:
            if peer.asked_at <= seen_at:
                await self._refresh(peer)

    async def _keep_fresh(self, peer: Peer) -> None:
        while True:
            # Before, not after: what asks for a refresh meanwhile has seen more than this one will.
            peer.wake.clear()
            async with self._slots, peer.lock:
                await self._refresh(peer)
            try:
                async with asyncio.timeout(self._pause(peer)):
                    await peer.wake.wait()
            except TimeoutError:
                continue
            await asyncio.sleep(self._refreshing.least_interval)

    async def _refresh(self, peer: Peer) -> None:
        started = self._clock.monotonic()
        counted = Counter(peer.sent)
        try:
            info = await peer.inquiry.ask(self._client, self._wanted, started)
        except (OrchestratorFailed, WireError) as error:
            self._note_silence(peer, error)
        except Exception as error:  # noqa: BLE001  one peer's surprise must not end the others' refresh
            _log.exception("orchestrator_refresh_failed", uri=peer.uri)
            self._note_silence(peer, error)
        else:
            self._note_answer(peer, info, counted, started)
            if self._appraiser is not None and peer.offer is not None:
                peer.objections = await appraise(
                    self._appraiser, peer.offer, peer.inquiry.refusals, peer.objections
                )
        peer.asked_at = started
        self._note_asked(peer.uri)
        if self._peers.get(peer.uri) is peer:
            self._reassess(peer)
            self._changed()

    def _note_asked(self, uri: str) -> None:
        self._unasked.discard(uri)
        if not self._unasked:
            self._all_asked.set()

    def _note_answer(
        self, peer: Peer, info: OrchestratorInfo, counted: Counter[ModelId], started: float
    ) -> None:
        now = self._clock.monotonic()
        offer = peer.inquiry.read(info, refreshed_at=now, round_trip=now - started)
        if peer.problem != offer.problem or peer.offer is None:
            _log.info("orchestrator_answers", uri=peer.uri, problem=offer.problem)
        peer.offer = offer
        peer.mismatches.clear()
        peer.warmed.clear()
        peer.problem = offer.problem
        peer.is_reachable = True
        peer.refresh_failures = 0
        peer.standing = after_sign_of_life(peer.standing)
        # A job sent while the question was under way may or may not be counted in the answer; it is
        # taken as not counted, which errs towards asking elsewhere. One that is still being
        # written down is certainly not counted.
        peer.places = {
            model_id: model.free - (peer.in_flight[model_id] - counted[model_id])
            for model_id, model in offer.models.items()
        }

    def _note_silence(self, peer: Peer, error: Exception) -> None:
        if not peer.problem or peer.refresh_failures == 0:
            _log.warning("orchestrator_silent", uri=peer.uri, problem=str(error))
        peer.problem = str(error)
        peer.refresh_failures += 1
        # A slow answer may be a busy machine: its offer is believed until it is too old.
        if isinstance(error, OrchestratorUnreachable):
            peer.is_reachable = False

    def _pause(self, peer: Peer) -> float:
        """Seconds until the next refresh."""
        settings = self._refreshing
        usual = settings.pause(len(self._peers), self._viewpoint.policy.max_age)
        if peer.refresh_failures:
            silent = sum(one.refresh_failures > 0 for one in self._peers.values())
            pause = settings.pause_of_silent(usual, peer.refresh_failures, silent)
        elif peer.pressed_until > self._clock.monotonic():
            pause = settings.busy_interval
        else:
            pause = usual
        token = None if peer.offer is None else peer.offer.auth_token
        if token is not None and not peer.refresh_failures:
            left = token.expiration - self._clock.now()
            pause = min(pause, max(left * _TOKEN_LIFE_USED, settings.busy_interval))
        # Gateways that were started together must not ask together for ever.
        return pause * self._randomness.uniform(0.8, 1.2)

    # What requests read and report

    def subscribe(self, listener: Callable[[], None]) -> None:
        """`listener` is called after every change that may have made a place free."""
        self._listeners.append(listener)

    def prospects(self, model_id: ModelId) -> Collection[Prospect]:
        """Everybody who offers the model. Empty for a model nobody offers."""
        market = self._market(model_id)
        return () if market is None else market.prospects()

    def best(self, need: Need, now: float, tried: Collection[str]) -> Candidate | None:
        """What `selection.rank` finds among `prospects`, without looking at all. `now` is monotonic."""
        market = self._market(need.model_id)
        return None if market is None else market.best(need, now, tried)

    def _market(self, model_id: ModelId) -> Market | None:
        market = self._markets.of(model_id)
        if market is None:
            found = (self._viewpoint.prospect(peer, model_id) for peer in self._peers.values())
            market = self._markets.open(model_id, (one for one in found if one is not None))
            if market is not None and model_id not in self._wanted:
                self._wanted[model_id] = None
                self.hurry(*market)
        return market

    def glance(self, model_id: ModelId) -> list[Prospect]:
        """As `prospects`, for those who only look: nothing is remembered or asked for by it."""
        seen = (self._viewpoint.prospect(peer, model_id) for peer in self._peers.values())
        return [prospect for prospect in seen if prospect is not None]

    def others(self, model_id: ModelId) -> tuple[Refusal, ...]:
        """Everybody who is not among `prospects`, and why."""
        refusals = []
        for peer in self._peers.values():
            if peer.offer is None:
                refusals.append(
                    Refusal(peer.uri, Reason.UNREACHABLE, peer.problem or "not asked yet")
                )
            elif model_id not in peer.offer.models:
                refusals.append(Refusal(peer.uri, Reason.NOT_OFFERED, peer.problem))
        return tuple(sorted(refusals))

    def offer(self, uri: str) -> Offer | None:
        peer = self._known(uri)
        return None if peer is None else peer.offer

    def claim(self, uri: str, model_id: ModelId) -> None:
        """Count a job of ours in."""
        peer = self._peers[uri]
        peer.in_flight[model_id] += 1
        peer.places[model_id] = peer.places.get(model_id, 0) - 1
        self._recount(peer, model_id)

    def note_sent(self, uri: str, model_id: ModelId) -> None:
        """A claimed job is being sent."""
        self._holder(uri).sent[model_id] += 1

    def release(
        self, uri: str, model_id: ModelId, *, was_sent: bool, was_busy: bool = False
    ) -> None:
        """Count a job out. `was_busy`: it was refused for want of a place, so there is none."""
        peer = self._holder(uri)
        peer.in_flight[model_id] -= 1
        peer.sent[model_id] -= was_sent
        places = peer.places.get(model_id, 0) + 1
        peer.places[model_id] = min(places, 0) if was_busy else places
        self._recount(peer, model_id)
        if uri in self._leaving:
            if not peer.in_flight.total():
                del self._leaving[uri]
            return
        if was_busy:
            self.hurry(uri)
        self._changed()

    def _holder(self, uri: str) -> Peer:
        """The peer that a job of ours keeps from being forgotten."""
        return self._leaving[uri] if uri in self._leaving else self._peers[uri]

    def note_success(self, uri: str, job: Delivery) -> None:
        """Call it before the job's place is released."""
        peer = self._holder(uri)
        before, model_id = peer.standing, job.model_id
        peer.standing = after_success(before, job, self._believed(peer, job))
        if uri in self._peers:
            self._viewpoint.learn(peer, job)
        if (
            before.fault is not None
            or before.allowance is not None
            or job.was_cold
            or has_moved(before.pace(model_id, job.size), peer.standing.pace(model_id, job.size))
        ):
            self._reassess(peer)

    def note_overdue(self, uri: str, job: Delivery) -> None:
        """A job was cut off, for another orchestrator was sooner: no fault, but a sign of its pace."""
        peer = self._known(uri)
        prospect = None if peer is None else self._viewpoint.prospect(peer, job.model_id)
        if peer is None or prospect is None:
            return
        before = peer.standing
        peer.standing = after_overdue(before, job, pace_of(prospect, job.size))
        if peer.standing is not before:
            if uri in self._peers:
                self._viewpoint.learn(peer, job)
            self._reassess(peer)

    def _believed(self, peer: Peer, job: Delivery) -> int:
        """Of a job, femtoseconds per pixel and step."""
        prospect = self._viewpoint.prospect(peer, job.model_id) if job.was_cold else None
        return 0 if prospect is None else pace_of(prospect, job.size)

    def note_failure(self, uri: str, fault: Fault, reason: str) -> None:
        peer = self._known(uri)
        if peer is None:
            return
        now = self._clock.monotonic()
        before = peer.standing.suspended_until
        peer.standing = after_failure(peer.standing, fault, reason, self._pausing, now)
        if peer.standing.suspended_until != before:
            seconds = round(peer.standing.suspended_until - now, 1)
            _log.warning(
                "orchestrator_paused", uri=uri, fault=fault.value, reason=reason, seconds=seconds
            )
        self._reassess(peer)
        self.hurry(uri)

    def told(self, uri: str, news: News) -> None:
        """A node pushed how it is, sooner than it would have been asked."""
        peer = self._peers.get(uri)
        if peer is None:
            return
        if peer.told(news):
            self.hurry(uri)
        self._reassess(peer)
        self._changed()

    def hurry(self, *uris: str) -> None:
        """Refresh these as soon as may be."""
        for uri in uris:
            if uri in self._peers:
                self._peers[uri].wake.set()

    def hurry_all(self) -> None:
        """What all of them quote has become old."""
        self.hurry(*self._peers)

    def press(self, model_id: ModelId, seconds: float) -> None:
        """Requests wait for a place: look often whether one became free at those who offer it."""
        until = self._clock.monotonic() + seconds
        for uri in self._markets.of(model_id) or ():
            peer = self._peers[uri]
            if peer.pressed_until < self._clock.monotonic():
                peer.wake.set()
            peer.pressed_until = max(peer.pressed_until, until)

    def has_measured(self, uri: str, need: Need) -> bool:
        """Whether a job of the model and of about that size was delivered there."""
        peer = self._known(uri)
        return peer is not None and peer.standing.pace(need.model_id, need.size) is not None

    def in_flight(self, uri: str) -> int:
        peer = self._known(uri)
        return 0 if peer is None else peer.in_flight.total()

    def jobs_of(self, model_id: ModelId) -> int:
        """Our own jobs on the model, at all orchestrators."""
        everybody = (*self._peers.values(), *self._leaving.values())
        return sum(peer.in_flight[model_id] for peer in everybody)

    def snapshot(self) -> tuple[Offer, ...]:
        """The last offer of everybody who ever answered."""
        return tuple(peer.offer for peer in self._peers.values() if peer.offer is not None)

    def states(self) -> tuple[OrchestratorState, ...]:
        now = self._clock.monotonic()
        return tuple(self._state(peer, now) for peer in self._peers.values())

    def _state(self, peer: Peer, now: float) -> OrchestratorState:
        objected = None if peer.offer is None else self._terms.objection(peer.offer)
        why = "" if objected is None else f"{objected[0].value} ({objected[1]})"
        return replace(peer.state(now), sources=self.sources(peer.uri), passed_over=why)

    def known_models(self) -> tuple[ModelId, ...]:
        """Every model somebody offers, in order of name."""
        return tuple(sorted({model_id for offer in self.snapshot() for model_id in offer.models}))

    def __len__(self) -> int:
        return len(self._peers)

    # Keeping prospects

    def _recount(self, peer: Peer, model_id: ModelId) -> None:
        if peer.standing.allowance is None:
            self._markets.recount(peer.uri, model_id, peer.free(model_id))
            return
        # A job on one model takes of what it may have on all.
        for each in peer.places:
            self._markets.recount(peer.uri, each, peer.free(each))

    def _reassess(self, peer: Peer) -> None:
        if peer.uri in self._peers:
            self._markets.reassess(peer.uri, partial(self._viewpoint.prospect, peer))

    def _changed(self) -> None:
        for listener in self._listeners:
            listener()
