"""POST /text-to-image: from a gateway's request to images and a receipt."""

import asyncio
import re
import secrets
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

import orjson
import pybase64
import structlog
from aiohttp import web

from network.chain.model import ChainError
from network.errors import DatabaseError, ProblemError
from network.prices import NoRateError
from network.units import JobId, ModelId, format_price, pixels_of
from network.wire import problems
from network.wire.headers import CREDIT, FEE, GUIDANCE, JOB_ID, PRICE, STEPS, WARNINGS
from network.wire.limits import LARGEST_SEED, Limits
from network.wire.messages import (
    TextToImageRequest,
    check_limits,
    parse_loras,
    parse_request,
    prompt_parts,
)
from node.accounting.journal import InsufficientBalanceError, PaymentRefusedError
from node.accounting.model import Credit, Job
from node.accounting.pricing import Declined, PriceList, Quote, judge_offer
from node.api.credentials import Doorkeeper, Grant
from node.api.refusals import Refusal, insufficient_capacity
from node.config.loras import ServedLora, refusal
from node.config.profiles import Profile, Sampling, replaced, sampling
from node.engine.work import EngineBusyError, FailureKind, ImageJob, ImageResult, JobFailedError
from node.jobs.model import NoPlaceError, RepeatedAttemptError
from node.jobs.runner import JobRunner
from node.payments.till import NotPaid, Till

_ATTEMPT_ID: Final = re.compile(r"[0-9A-Za-z_-]{16,64}")
#: Encoding more than this takes longer than a thread costs.
_INLINE_BYTES: Final = 512 * 1024
_DATA_URL: Final = "data:image/png;base64,"

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class ImageService:
    """Serves requests for images.

    `limits` tells a model's bounds, None for one that is not served here. `loras` may be named.
    Models in `deterministic` give the same bytes at any load whether a request asks for that or
    not.
    `profiles` fill in what clients did not choose; a model without one gets what was sent.
    """

    doorkeeper: Doorkeeper
    prices: PriceList
    runner: JobRunner
    limits: Callable[[ModelId], Limits | None]
    loras: Collection[ServedLora]
    profiles: Mapping[ModelId, Profile]
    max_body_bytes: int
    body_timeout: float
    deterministic: frozenset[ModelId] = frozenset()
    #: None off-chain, where nobody pays by ticket.
    till: Till | None = None

    async def post(self, request: web.Request) -> web.Response:
        """Answer a gateway. Nothing is done, and nothing priced, before all is in bounds."""
        asked = parse_request(await self._body(request))
        grant = self.doorkeeper.check(request)
        model_id, limits = self._model(asked)
        check_limits(asked, limits)
        self._check_loras(asked, model_id, limits)
        sent = _sampling(asked)
        asked = _chosen(asked, self.profiles.get(model_id))
        job, work = self._job(request, asked, grant, model_id, limits)
        paying = _Paying(self.till, grant, job.attempt_id)
        result = await self._run(job, work, paying)
        if sum(len(image.png) for image in result.images) > _INLINE_BYTES:
            body = await asyncio.to_thread(_body, result)
        else:
            body = _body(result)
        warnings = (*replaced(sent, _sampling(asked)), *result.warnings)
        return _answer(job, work, body, warnings, paying.headers)

    async def _body(self, request: web.Request) -> bytes:
        too_large = Refusal(
            413,
            f"text-to-image returned 400: the body is larger than {self.max_body_bytes} bytes",
            "body_too_large",
        )
        if (request.content_length or 0) > self.max_body_bytes:
            raise too_large
        try:
            async with asyncio.timeout(self.body_timeout):
                return await request.read()
        except web.HTTPRequestEntityTooLarge:
            raise too_large from None
        except TimeoutError:
            raise Refusal(408, "the body did not arrive in time", "slow_body") from None
        except web.RequestPayloadError as error:
            raise Refusal(400, f"cannot read the body: {error}", "bad_body") from None

    def _model(self, asked: TextToImageRequest) -> tuple[ModelId, Limits]:
        if not asked.model_id:
            raise Refusal(400, "text-to-image returned 400: model_id is missing", "bad_request")
        model_id = ModelId(asked.model_id)
        limits = self.limits(model_id)
        if limits is None:
            raise insufficient_capacity("unknown_model")
        return model_id, limits

    def _check_loras(self, asked: TextToImageRequest, model_id: ModelId, limits: Limits) -> None:
        names = [name for name, _ in parse_loras(asked.loras, limits)]
        reason = refusal(self.loras, model_id, names)
        if reason is not None:
            raise ProblemError(problems.bad_request(reason, param="loras"))

    def _job(
        self,
        request: web.Request,
        asked: TextToImageRequest,
        grant: Grant,
        model_id: ModelId,
        limits: Limits,
    ) -> tuple[Job, ImageJob]:
        quote = self._quote(asked, grant, model_id)
        job_id = JobId(secrets.token_hex(16))
        job = Job(
            job_id=job_id,
            attempt_id=_attempt_id(request.headers) or job_id,
            payer=grant.payer,
            model_id=model_id,
            width=asked.width,
            height=asked.height,
            images=asked.num_images_per_prompt,
            steps=asked.num_inference_steps,
            pixels=quote.pixels,
            price=quote.price,
            fee=quote.fee,
        )
        deterministic = asked.deterministic or model_id in self.deterministic
        return job, _work(job, asked, limits, deterministic=deterministic)

    def _quote(self, asked: TextToImageRequest, grant: Grant, model_id: ModelId) -> Quote:
        pixels = pixels_of(asked.width, asked.height, asked.num_images_per_prompt)
        try:
            quote = self.prices.quote(model_id, grant.payer, pixels)
        except NoRateError as error:
            log.warning("nothing can be priced", model=model_id, why=str(error))
            raise insufficient_capacity("no_rate") from None
        verdict = judge_offer(
            quote,
            grant.expected_price,
            may_omit=grant.sender is None,
            model_id=model_id,
            held=self.prices.held(model_id, grant.payer),
        )
        if isinstance(verdict, Declined):
            raise Refusal(400, verdict.reason, "price")
        return verdict

    async def _run(self, job: Job, work: ImageJob, paying: "_Paying") -> ImageResult:
        try:
            return await self._ran(job, work, paying)
        except Refusal as refusal:
            raise refusal.with_headers(paying.headers) from None

    async def _ran(self, job: Job, work: ImageJob, paying: "_Paying") -> ImageResult:
        pay = None if self.till is None else paying.look
        try:
            return await self.runner.run(job, work, pay)
        except NoPlaceError as error:
            raise insufficient_capacity(error.reason) from None
        except ChainError as error:
            log.warning("no payment can be looked at", why=str(error))
            raise insufficient_capacity("chain_unavailable") from None
        except PaymentRefusedError as error:
            raise Refusal(400, str(error), "payment") from None
        except EngineBusyError:
            raise insufficient_capacity("engine_busy") from None
        except RepeatedAttemptError as error:
            raise Refusal(409, str(error), "repeated_job_id") from None
        except InsufficientBalanceError:
            raise Refusal(400, "Insufficient balance", "insufficient_balance") from None
        except JobFailedError as error:
            if error.kind not in {FailureKind.INVALID, FailureKind.UNSAFE}:
                log.warning("job failed", job_id=job.job_id, kind=error.kind, why=error.message)
            raise _failure(error) from None
        except DatabaseError:
            # What the payment brought may not be on disk: the receipt will tell.
            paying.headers.clear()
            log.exception("the journal does not take writes", job_id=job.job_id)
            raise Refusal(500, "the job could not be written down", "journal") from None


@dataclass(slots=True)
class _Paying:
    """One request's payment; `headers` tell what it brought, once it was looked at."""

    till: Till | None
    grant: Grant
    attempt_id: str
    headers: dict[str, str] = field(default_factory=dict)

    async def look(self) -> Credit | None:
        """Raises PaymentRefusedError where it is no payment, ChainError."""
        if self.till is None:
            return None
        found = await self.till.take(self.grant.payment, self.attempt_id)
        if isinstance(found, NotPaid):
            raise PaymentRefusedError(found.reason)
        self.headers[CREDIT] = f"{found.amount.numerator}/{found.amount.denominator}"
        return found


def _attempt_id(headers: Mapping[str, str]) -> str | None:
    given = headers.get(JOB_ID)
    if given is None:
        return None
    if not _ATTEMPT_ID.fullmatch(given):
        raise Refusal(400, f"{JOB_ID} must be 16 to 64 letters, digits, '-' or '_'", "bad_job_id")
    return given


def _sampling(asked: TextToImageRequest) -> Sampling:
    return Sampling(asked.num_inference_steps, asked.guidance_scale)


def _chosen(asked: TextToImageRequest, profile: Profile | None) -> TextToImageRequest:
    """The request with its model's profile in place of what the client did not choose."""
    used = sampling(_sampling(asked), profile)
    return asked.model_copy(
        update={"num_inference_steps": used.steps, "guidance_scale": used.guidance}
    )


def _work(job: Job, asked: TextToImageRequest, limits: Limits, *, deterministic: bool) -> ImageJob:
    # None, when the client left it to us; the last image's seed has to stay in range as well.
    seed: int | None = asked.seed
    if seed is None:
        seed = secrets.randbelow(LARGEST_SEED - job.images + 2)
    negative = asked.negative_prompt
    return ImageJob(
        job_id=job.job_id,
        model_id=job.model_id,
        prompts=prompt_parts(asked.prompt),
        negative_prompts=prompt_parts(negative) if negative else (),
        width=job.width,
        height=job.height,
        steps=job.steps,
        guidance=asked.guidance_scale,
        seeds=tuple(range(seed, seed + job.images)),
        loras=parse_loras(asked.loras, limits),
        safety_check=asked.safety_check,
        deterministic=deterministic,
    )


def _failure(error: JobFailedError) -> Refusal:
    match error.kind:
        case FailureKind.INVALID:
            text = f"text-to-image returned 400: Error during model execution: {error.message}"
            return Refusal(400, text, "invalid_for_model")
        case FailureKind.UNSAFE:
            # By the word 400 gateways tell their client, and ask nobody else to draw the same.
            return Refusal(400, f"text-to-image returned 400: {error.message}", "unsafe")
        case FailureKind.OUT_OF_MEMORY:
            # Another node may have the memory, and this one has it for smaller images.
            return Refusal(503, f"insufficient capacity: {error.message}", "out_of_memory")
        case FailureKind.WORKER_CRASHED:
            return Refusal(500, "the image worker crashed during this job", "worker_crashed")
        case FailureKind.INTERNAL:
            return Refusal(500, "Text-to-image pipeline error.", "pipeline_error")


def _body(result: ImageResult) -> bytes:
    images = [
        {
            "url": _DATA_URL + pybase64.b64encode_as_string(image.png),
            "seed": image.seed,
            "nsfw": image.safety.nsfw,
            "safety": image.safety,
        }
        for image in result.images
    ]
    return orjson.dumps({"images": images})


def _answer(
    job: Job,
    work: ImageJob,
    body: bytes,
    warnings: Sequence[str],
    payment: Mapping[str, str],
) -> web.Response:
    headers = {
        **payment,
        JOB_ID: job.job_id,
        FEE: str(job.fee),
        PRICE: format_price(job.price),
        STEPS: str(work.steps),
        GUIDANCE: f"{work.guidance:g}",
    }
    if warnings:
        headers[WARNINGS] = "; ".join(warnings)
    return web.Response(body=body, content_type="application/json", headers=headers)
