"""`GET /v1/models`, and one of them: what the key may ask for and somebody offers.

OpenAI's fields, and under `limner` what a person who chooses wants to know.
"""

from asyncio import sleep
from collections.abc import Callable, Collection, Mapping
from dataclasses import asdict
from typing import Any, Final
from urllib.parse import unquote

from aiohttp.web import BaseRequest, StreamResponse

from gateway.api.answers import json_answer
from gateway.api.auth import Keys, authenticate
from gateway.api.bounds import Bounds
from gateway.api.exchange import Exchange
from gateway.api.openai_body import renamed
from gateway.dispatch import Showing
from gateway.keys import KeyGrant
from network.errors import ProblemError
from network.units import ModelId
from network.wire import problems

MODELS_PREFIX: Final = "/v1/models/"
_OWNER: Final = "livepeer"

Look = Callable[[ModelId, KeyGrant], Showing]
Loras = Mapping[ModelId, Collection[str]]


class Models:
    """The endpoints."""

    def __init__(
        self,
        keys: Keys,
        known: Callable[[], Collection[ModelId]],
        since: int,
        *,
        look: Look | None = None,
        bounds: Bounds | None = None,
        loras: Loras | None = None,
    ) -> None:
        """`since` is told as each model's creation, in Unix seconds: clients require a number."""
        self._keys = keys
        self._known = known
        self._since = since
        self._look = look
        self._bounds = bounds
        self._loras: Loras = {} if loras is None else loras

    async def index(self, request: BaseRequest, exchange: Exchange) -> StreamResponse:
        grant = await authenticate(self._keys, request, exchange)
        listed = []
        for model_id in self._offered(grant):
            listed.append(self._describe(model_id, grant))
            # A long list of many orchestrators must not hold up the requests under way.
            await sleep(0)
        return json_answer({"object": "list", "data": listed})

    async def show(self, request: BaseRequest, exchange: Exchange) -> StreamResponse:
        """Raises ProblemError 404."""
        grant = await authenticate(self._keys, request, exchange)
        # Ids have slashes, which clients write as such or as %2F.
        model_id = ModelId(unquote(request.rel_url.raw_path.removeprefix(MODELS_PREFIX)))
        offered = self._offered(grant)
        if model_id not in offered:
            raise ProblemError(renamed(problems.model_not_found(model_id, offered)))
        return json_answer(self._describe(model_id, grant))

    def _offered(self, grant: KeyGrant) -> list[ModelId]:
        return [one for one in self._known() if grant.models is None or one in grant.models]

    def _describe(self, model_id: ModelId, grant: KeyGrant) -> dict[str, Any]:
        told = {"id": model_id, "object": "model", "created": self._since, "owned_by": _OWNER}
        own = self._own(model_id, grant)
        return {**told, "limner": own} if own else told

    def _own(self, model_id: ModelId, grant: KeyGrant) -> dict[str, Any]:
        own: dict[str, Any] = {}
        if self._look is not None:
            own |= _shown(self._look(model_id, grant))
        if self._bounds is not None:
            limits = asdict(self._bounds.of(model_id))
            del limits["max_body_bytes"]
            if grant.max_steps is not None:
                limits["max_steps"] = min(limits["max_steps"], grant.max_steps)
            own["default"] = model_id == self._bounds.default_model
            own["loras"] = sorted(self._loras.get(model_id, ()))
            own["limits"] = limits
        return own


def _shown(showing: Showing) -> dict[str, Any]:
    return {
        "available": not showing.reason,
        "reason": showing.reason,
        "warm": showing.warm,
        "orchestrators": showing.orchestrators,
        "free": showing.free,
        # A fraction, and too long for a number of JSON's.
        "wei_per_pixel": None if showing.price is None else str(showing.price),
        "overhead_seconds": round(showing.overhead, 6),
        "seconds_per_pixel_step": showing.pace,
    }
