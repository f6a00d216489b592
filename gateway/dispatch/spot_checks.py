"""A share of the delivered images is made again elsewhere, and compared: whoever cheats is found out.

Nothing of it is in a request's way: what is checked was delivered and paid, checks run one after
another, wait behind a short queue and spend from a budget of their own.
"""

import asyncio
import random
import secrets
from collections import Counter
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from typing import Final, NamedTuple

import structlog

from gateway.dispatch.dispatcher import Dispatcher
from gateway.dispatch.journey import DispatchResult
from gateway.dispatch.likeness import Undecodable, can_compare, likeness, small
from gateway.dispatch.verdict import Finding, Verdict, after_three, after_two
from gateway.keys import Team, UseLimits
from gateway.orchestrators.answers import Expected, OrchestratorFailed
from gateway.orchestrators.directory import Directory
from gateway.orchestrators.standing import Fault
from network.errors import ConfigError, LimnerError, ProblemError
from network.prices import Price
from network.runtime.supervisor import Supervisor
from network.units import ModelId, Wei
from network.wire.messages import TextToImageRequest

#: Under which name the journal has what checks cost.
KEY_ID: Final = "spot-checks"
#: Deliveries that wait to be checked; more are let go. Each holds an image and a prompt.
_MOST_WAITING: Final = 8

_log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Checking:
    """The settings."""

    #: Of all deliveries, 0 to 1.
    share: float
    wei_per_day: Wei
    #: URI of the orchestrator whose word decides; empty for two others.
    trusted: str = ""
    #: dB; images that are less alike are different ones.
    least_likeness: float = 22.0


@dataclass(frozen=True, slots=True)
class _Checker:
    """Who buys the images of checks (`journey.Buyer`)."""

    limits: UseLimits
    key_id: str = KEY_ID
    models: frozenset[ModelId] | None = None
    max_price: Price | None = None
    max_in_flight: int | None = None
    team: Team | None = None


@dataclass(frozen=True, slots=True)
class _Delivered:
    request_id: str
    uri: str
    #: For its first image alone.
    request: TextToImageRequest
    image: bytes

    @property
    def expected(self) -> Expected:
        seed = self.request.seed
        return Expected(1, self.request.width, self.request.height, 0 if seed is None else seed)


class _Again(NamedTuple):
    """Another orchestrator's image for the same."""

    uri: str
    image: bytes


class SpotChecks:
    """Run `run` under the supervisor; `consider` is called with every delivery."""

    def __init__(
        self,
        checking: Checking,
        dispatcher: Dispatcher,
        directory: Directory,
        randomness: random.Random,
    ) -> None:
        self._checking = checking
        self._dispatcher = dispatcher
        self._directory = directory
        self._randomness = randomness
        self._buyer = _Checker(UseLimits(wei_per_day=checking.wei_per_day))
        self._waiting: asyncio.Queue[_Delivered] = asyncio.Queue(_MOST_WAITING)
        self._counts = Counter(dict.fromkeys(Finding, 0))
        #: Told of the URI of each orchestrator that is accused. Returns at once.
        self.accuser: Callable[[str], None] | None = None

    def figures(self) -> Mapping[str, int]:
        """Checks since the start, by what they came to."""
        return {finding.value: count for finding, count in self._counts.items()}

    def consider(
        self, request_id: str, request: TextToImageRequest, result: DispatchResult
    ) -> None:
        """Check this delivery some time, or not."""
        checking = self._checking
        # Places that clients wait for are theirs.
        if self._dispatcher.waiting or self._waiting.full():
            return
        if result.orchestrator == checking.trusted:
            return
        if self._randomness.random() >= checking.share:
            return
        first = result.images[0]
        if first.safety.nsfw:
            return  # another's safety check may let it pass as it was
        again = request.model_copy(
            update={"num_images_per_prompt": 1, "seed": first.seed, "deterministic": True}
        )
        self._waiting.put_nowait(_Delivered(request_id, result.orchestrator, again, first.png))

    async def run(self) -> None:
        """Check what waits, for ever. Cancel to stop."""
        while True:
            delivered = await self._waiting.get()
            try:
                verdict = await self._check(delivered)
            except (LimnerError, ValueError) as error:
                # A refusal may repeat a prompt: what it is called is told, what it says is not.
                _log.info(
                    "spot_check_open",
                    request_id=delivered.request_id,
                    orchestrator=delivered.uri,
                    reason=_kind(error),
                )
                verdict = Verdict(Finding.OPEN)
            self._counts[verdict.finding] += 1
            if verdict.finding is Finding.DISAGREED:
                self._accuse(delivered, verdict.odd)

    async def _check(self, delivered: _Delivered) -> Verdict:
        """Raises ProblemError where nobody else makes the image, OrchestratorFailed for a bad one."""
        first, trusted = delivered.uri, self._checking.trusted
        if not await self._shows_something(delivered, delivered.image):
            return Verdict(Finding.DISAGREED, first)
        others = {*self._directory.uris()} - {trusted} if trusted else {first}
        second = await self._again(delivered, others)
        verdict = after_two(
            first,
            are_alike=await self._are_alike(delivered, delivered.image, second.image),
            # Not whoever was listed since it was asked for.
            is_second_trusted=second.uri == trusted,
        )
        if verdict is not None:
            return verdict
        third = await self._again(delivered, {first, second.uri})
        return after_three(
            first,
            second.uri,
            is_third_like_checked=await self._are_alike(delivered, delivered.image, third.image),
            is_third_like_second=await self._are_alike(delivered, second.image, third.image),
        )

    async def _again(self, delivered: _Delivered, avoided: Collection[str]) -> _Again:
        result = await self._dispatcher.run(
            secrets.token_hex(16), self._buyer, delivered.request, avoided=avoided
        )
        await result.settled
        picture = result.images[0]
        if picture.safety.nsfw:
            raise OrchestratorFailed("an image was altered for safety")
        if not await self._shows_something(delivered, picture.png):
            self._accuse(delivered, result.orchestrator)
            raise OrchestratorFailed("an image cannot be decoded")
        return _Again(result.orchestrator, picture.png)

    async def _shows_something(self, delivered: _Delivered, image: bytes) -> bool:
        """Deliveries are not decoded: what shows nothing is found out here, without another's word."""
        try:
            await asyncio.to_thread(small, image, delivered.expected)
        except Undecodable:
            return False
        return True

    async def _are_alike(self, delivered: _Delivered, one: bytes, other: bytes) -> bool:
        found = await asyncio.to_thread(likeness, one, other, delivered.expected)
        return found >= self._checking.least_likeness

    def _accuse(self, delivered: _Delivered, uri: str) -> None:
        _log.warning("spot_check_disagreed", request_id=delivered.request_id, orchestrator=uri)
        reason = f"its image for request {delivered.request_id} is not what others made of it"
        self._directory.note_failure(uri, Fault.WRONG, reason)
        if self.accuser is not None:
            self.accuser(uri)


def _kind(error: Exception) -> str:
    return error.problem.code if isinstance(error, ProblemError) else type(error).__name__


def begin(
    checking: Checking,
    dispatcher: Dispatcher,
    directory: Directory,
    randomness: random.Random,
    supervisor: Supervisor,
) -> SpotChecks | None:
    """None where nothing is to be checked. Raises ConfigError without what compares images."""
    if not checking.share:
        return None
    if not can_compare():
        raise ConfigError(
            "spot_checks.share", "images are compared by Pillow: install limner[checks]"
        )
    checks = SpotChecks(checking, dispatcher, directory, randomness)
    dispatcher.witness = checks.consider
    supervisor.start("spot checks", checks.run)
    return checks
