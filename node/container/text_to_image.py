"""POST /text-to-image as Livepeer's ai-runner answers it."""

from dataclasses import dataclass
from typing import Final

from aiohttp import web

from network.errors import ProblemError
from network.units import ModelId
from network.wire import problems
from network.wire.headers import FEE, PRICE
from network.wire.messages import TextToImageRequest
from node.accounting.model import NOBODY
from node.api.bodies import read_body
from node.apps.answers import json_answer
from node.apps.images import Commission, ImageDesk
from node.container.body import check_type, parse
from node.container.token import Token

_LONGEST_ECHO: Final = 120
_UNPROCESSABLE: Final = 422


@dataclass(frozen=True, slots=True)
class RunnerService:
    """Serves an orchestrator's requests for images of `models`, whose first is the default.

    Nobody pays at `desk`: whoever calls has the payment.
    """

    token: Token
    desk: ImageDesk
    models: tuple[ModelId, ...]
    max_body_bytes: int
    body_timeout: float

    def check(self, request: web.Request) -> None:
        """Raise ProblemError 401 unless the caller shows the token."""
        if not self.token.opens_to(request.headers.get("Authorization")):
            raise ProblemError(problems.unauthenticated())

    async def post(self, request: web.Request) -> web.Response:
        """Answer with images, or raise ProblemError or Refusal.

        The token comes first: who has none learns nothing and has nothing read. What follows is
        in the ai-runner's order.
        """
        self.check(request)
        check_type(request)
        body = await read_body(request, max_bytes=self.max_body_bytes, seconds=self.body_timeout)
        asked = parse(body)
        order = self.desk.order(self._commission(asked, self._model_id(asked)), None)
        result = await self.desk.make(order, None)
        answer = await json_answer(order, result)
        for header in (FEE, PRICE):
            answer.headers.pop(header)
        return answer

    def _model_id(self, asked: TextToImageRequest) -> ModelId:
        model_id = ModelId(asked.model_id) if asked.model_id else self.models[0]
        if model_id in self.models:
            return model_id
        loaded = ", ".join(self.models)
        called = asked.model_id[:_LONGEST_ECHO]
        message = f"pipeline configured with {loaded} but called with {called}."
        raise ProblemError(problems.bad_request(message, "model_not_loaded", "model_id"))

    def _commission(self, asked: TextToImageRequest, model_id: ModelId) -> Commission:
        try:
            return self.desk.commission(asked, model_id, NOBODY)
        except ProblemError as error:
            problem = error.problem
            if problem.status != _UNPROCESSABLE:
                raise
            # go-livepeer's gateways take only a 400 for their client's fault. For a 422 they have
            # the orchestrator suspended and send the same to the next one.
            found = problems.bad_request(problem.message, "out_of_bounds", problem.param)
            raise ProblemError(found) from None
