"""GET /discover-orchestrators: whom this signer's clients can buy from, at prices it would pay."""

from collections.abc import Callable, Mapping, Sequence
from fractions import Fraction
from typing import Any

from gateway.orchestrators.peer import OrchestratorState
from gateway.signer.refusal import UNAVAILABLE, SigningRefusedError
from network.capabilities import TEXT_TO_IMAGE_PIPELINE


class Market:
    """Reads what the gateway's directory knows."""

    def __init__(
        self,
        states: Callable[[], Sequence[OrchestratorState]],
        runners: Callable[[str], Sequence[Mapping[str, Any]]],
        *,
        max_age: float,
        max_price: Callable[[], Fraction | None],
    ) -> None:
        """`max_age` in seconds, `max_price` in wei per pixel; it may raise SigningRefusedError."""
        self._states = states
        self._runners = runners
        self._max_age = max_age
        self._max_price = max_price

    def listing(self, wanted: frozenset[str]) -> list[dict[str, Any]]:
        """Those that offer any of `wanted`, "pipeline/model" each; all where nothing is wanted.

        Raises SigningRefusedError 503 while nobody at all can be bought from.
        """
        most = self._max_price()
        entries = [
            entry for state in self._states() if (entry := self._entry(state, most)) is not None
        ]
        if not entries:
            raise SigningRefusedError(
                UNAVAILABLE, "no orchestrator is known to take work at the moment"
            )
        if not wanted:
            return entries
        return [entry for entry in entries if not wanted.isdisjoint(entry["capabilities"])]

    def _entry(self, state: OrchestratorState, most: Fraction | None) -> dict[str, Any] | None:
        offer = state.offer
        if offer is None or offer.address is None or offer.problem or state.passed_over:
            return None
        if state.age is None or state.age > self._max_age:
            return None
        models = sorted(
            model_id
            for model_id, model in offer.models.items()
            # Without a price there is nothing to pay for, and no ticket to make.
            if model.price and (most is None or model.price <= most)
        )
        if not models:
            return None
        return {
            "address": offer.uri,
            "score": 1,
            "capabilities": [f"{TEXT_TO_IMAGE_PIPELINE}/{model_id}" for model_id in models],
            "runners": list(self._runners(offer.uri)),
        }
