"""`GET /v1/models`, and one of them: what the key may ask for and somebody offers."""

from collections.abc import Callable, Collection
from typing import Any, Final
from urllib.parse import unquote

from aiohttp.web import BaseRequest, StreamResponse

from gateway.api.answers import json_answer
from gateway.api.auth import Keys, authenticate
from gateway.api.exchange import Exchange
from gateway.api.openai_body import renamed
from gateway.keys import KeyGrant
from network.errors import ProblemError
from network.units import ModelId
from network.wire import problems

MODELS_PREFIX: Final = "/v1/models/"
_OWNER: Final = "livepeer"


class Models:
    """The endpoints."""

    def __init__(self, keys: Keys, known: Callable[[], Collection[ModelId]], since: int) -> None:
        """`since` is told as each model's creation, in Unix seconds: clients require a number."""
        self._keys = keys
        self._known = known
        self._since = since

    async def index(self, request: BaseRequest, exchange: Exchange) -> StreamResponse:
        grant = await authenticate(self._keys, request, exchange)
        listed = [self._describe(model_id) for model_id in self._offered(grant)]
        return json_answer({"object": "list", "data": listed})

    async def show(self, request: BaseRequest, exchange: Exchange) -> StreamResponse:
        """Raises ProblemError 404."""
        grant = await authenticate(self._keys, request, exchange)
        # Ids have slashes, which clients write as such or as %2F.
        model_id = ModelId(unquote(request.rel_url.raw_path.removeprefix(MODELS_PREFIX)))
        offered = self._offered(grant)
        if model_id not in offered:
            raise ProblemError(renamed(problems.model_not_found(model_id, offered)))
        return json_answer(self._describe(model_id))

    def _offered(self, grant: KeyGrant) -> list[ModelId]:
        return [one for one in self._known() if grant.models is None or one in grant.models]

    def _describe(self, model_id: ModelId) -> dict[str, Any]:
        return {"id": model_id, "object": "model", "created": self._since, "owned_by": _OWNER}
