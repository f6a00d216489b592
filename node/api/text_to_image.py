"""POST /text-to-image: from a gateway's request to images and a receipt."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import partial
from hashlib import sha256
from typing import Final

from aiohttp import web

from network.units import ModelId
from network.wire import image_parts
from network.wire.headers import JOB_ID
from network.wire.messages import TextToImageRequest, parse_request
from node.accounting.pricing import Declined, judge_offer
from node.api.bodies import read_body
from node.api.credentials import Doorkeeper, Grant
from node.api.repeats import Made, Repeats
from node.apps.answers import json_answer, parts_answer
from node.apps.images import Commission, ImageDesk
from node.apps.paying import Paying
from node.apps.refusal import Refusal
from node.jobs.kept import Claim
from node.payments.till import Till

_ATTEMPT_ID: Final = re.compile(r"[0-9A-Za-z_-]{16,64}")


@dataclass(frozen=True, slots=True)
class ImageService:
    """Serves gateways that ask for images in Livepeer's way for batches."""

    doorkeeper: Doorkeeper
    desk: ImageDesk
    max_body_bytes: int
    body_timeout: float
    #: None off-chain, where nobody pays by ticket.
    till: Till | None = None
    #: None keeps no answers.
    repeats: Repeats | None = None

    async def post(self, request: web.Request) -> web.Response:
        """Answer a gateway. Nothing is done, and nothing priced, before all is in bounds."""
        body = await read_body(request, max_bytes=self.max_body_bytes, seconds=self.body_timeout)
        asked = parse_request(body)
        grant = self.doorkeeper.check(request)
        if not asked.model_id:
            raise Refusal(400, "text-to-image returned 400: model_id is missing", "bad_request")
        given = attempt_id(request.headers)
        make = partial(self._make, asked, grant, given)
        if given is None or self.repeats is None:
            made = await make()
        else:
            # Prices and limits of today are nothing to an attempt that was taken yesterday.
            claim = Claim(given, grant.payer, sha256(body).digest())
            made = await self.repeats.answer(claim, make)
        if image_parts.are_accepted(request.headers.get("Accept", "")):
            return parts_answer(made.order, made.result, made.headers)
        return await json_answer(made.order, made.result, made.headers)

    async def _make(self, asked: TextToImageRequest, grant: Grant, given: str | None) -> Made:
        """Price it, have it made and charge it. Raises Refusal, ProblemError."""
        commission = self.desk.commission(asked, ModelId(asked.model_id), grant.payer)
        agreed = self._agreed(commission, grant)
        order = self.desk.order(agreed, given)
        paying = Paying(self.till, grant.payment, order.job.attempt_id)
        try:
            result = await self.desk.make(order, paying.pay)
        except Refusal as refusal:
            raise paying.told(refusal) from None
        return Made(order, result, paying.headers)

    def _agreed(self, commission: Commission, grant: Grant) -> Commission:
        """The commission at the price that the payer was quoted. Raises Refusal."""
        verdict = judge_offer(
            commission.quote,
            grant.expected_price,
            may_omit=grant.sender is None,
            model_id=commission.model_id,
            held=self.desk.prices.held(commission.model_id, commission.payer),
        )
        if isinstance(verdict, Declined):
            raise Refusal(400, verdict.reason, "price")
        return replace(commission, quote=verdict)


def attempt_id(headers: Mapping[str, str]) -> str | None:
    """Return the payer's own id for this request, None where it gave none. Raises Refusal."""
    given = headers.get(JOB_ID)
    if given is None:
        return None
    if not _ATTEMPT_ID.fullmatch(given):
        raise Refusal(400, f"{JOB_ID} must be 16 to 64 letters, digits, '-' or '_'", "bad_job_id")
    return given
