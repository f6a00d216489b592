"""From a parsed request for images to a priced job and its result, however it was asked for."""

import secrets
from collections.abc import Awaitable, Callable, Collection, Mapping
from dataclasses import dataclass
from fractions import Fraction

import structlog

from network.chain.model import ChainError
from network.errors import DatabaseError, ProblemError
from network.prices import NoRateError
from network.units import Address, JobId, ModelId, Pixels, Wei, pixels_of
from network.wire import problems
from network.wire.limits import LARGEST_SEED, Limits
from network.wire.messages import TextToImageRequest, check_limits, parse_loras, prompt_parts
from node.accounting.journal import InsufficientBalanceError, PaymentRefusedError
from node.accounting.model import Credit, Job
from node.accounting.pricing import PriceList, Quote
from node.apps.paying import JOURNAL
from node.apps.refusal import Refusal, insufficient_capacity
from node.config.loras import ServedLora, refusal
from node.config.profiles import Profile, Sampling, replaced, sampling
from node.engine.work import EngineBusyError, FailureKind, ImageJob, ImageResult, JobFailedError
from node.jobs.model import NoPlaceError, RepeatedAttemptError
from node.jobs.runner import JobRunner

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Commission:
    """A request within bounds, with its model's profile in it, and what it costs `payer`."""

    asked: TextToImageRequest
    model_id: ModelId
    payer: Address
    limits: Limits
    quote: Quote
    #: What the profile replaced.
    warnings: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Order:
    """A commission that is to be carried out."""

    job: Job
    work: ImageJob
    warnings: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class ImageDesk:
    """Prices requests for images and has them made.

    `limits` tells a model's bounds, None for one that is not served here. `loras` may be named.
    Models in `deterministic` give the same bytes at any load whether a request asks for that or
    not. `profiles` fill in what clients did not choose; a model without one gets what was sent.
    """

    prices: PriceList
    runner: JobRunner
    limits: Callable[[ModelId], Limits | None]
    loras: Collection[ServedLora]
    profiles: Mapping[ModelId, Profile]
    deterministic: frozenset[ModelId] = frozenset()

    def commission(
        self, asked: TextToImageRequest, model_id: ModelId, payer: Address
    ) -> Commission:
        """Bound and price a request. Raises ProblemError; Refusal where the model is not here."""
        limits = self.limits(model_id)
        if limits is None:
            raise insufficient_capacity("unknown_model")
        check_limits(asked, limits)
        self._check_loras(asked, model_id, limits)
        chosen = _chosen(asked, self.profiles.get(model_id))
        pixels = pixels_of(asked.width, asked.height, asked.num_images_per_prompt)
        return Commission(
            asked=chosen,
            model_id=model_id,
            payer=payer,
            limits=limits,
            quote=self._quote(model_id, payer, pixels),
            warnings=replaced(_sampling(asked), _sampling(chosen)),
        )

    def order(
        self, commission: Commission, attempt_id: str | None, promised: Wei | None = None
    ) -> Order:
        """Give it an id, ours also where the payer has none for it; draw a seed where it wants one.

        `promised` is what the payer was told it costs, where that was at an earlier moment.
        """
        asked, quote = commission.asked, commission.quote
        if promised is not None and promised != quote.fee:
            quote = Quote(Fraction(promised, quote.pixels), quote.pixels, promised)
        job_id = JobId(secrets.token_hex(16))
        job = Job(
            job_id=job_id,
            attempt_id=attempt_id or job_id,
            payer=commission.payer,
            model_id=commission.model_id,
            width=asked.width,
            height=asked.height,
            images=asked.num_images_per_prompt,
            steps=asked.num_inference_steps,
            pixels=quote.pixels,
            price=quote.price,
            fee=quote.fee,
        )
        deterministic = asked.deterministic or commission.model_id in self.deterministic
        work = _work(job, asked, commission.limits, deterministic=deterministic)
        return Order(job, work, commission.warnings)

    async def make(
        self, order: Order, pay: Callable[[], Awaitable[Credit | None]] | None
    ) -> ImageResult:
        """Have it made and charged; `pay` looks at its payment. Raises Refusal, charging nothing."""
        job = order.job
        try:
            return await self.runner.run(job, order.work, pay)
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
            log.exception("the journal does not take writes", job_id=job.job_id)
            raise Refusal(500, "the job could not be written down", JOURNAL) from None

    def _quote(self, model_id: ModelId, payer: Address, pixels: Pixels) -> Quote:
        try:
            return self.prices.quote(model_id, payer, pixels)
        except NoRateError as error:
            log.warning("nothing can be priced", model=model_id, why=str(error))
            raise insufficient_capacity("no_rate") from None

    def _check_loras(self, asked: TextToImageRequest, model_id: ModelId, limits: Limits) -> None:
        names = [name for name, _ in parse_loras(asked.loras, limits)]
        reason = refusal(self.loras, model_id, names)
        if reason is not None:
            raise ProblemError(problems.bad_request(reason, param="loras"))


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
            return Refusal(400, text, "invalid_for_model", message=error.message)
        case FailureKind.UNSAFE:
            # By the word 400 gateways tell their client, and ask nobody else to draw the same.
            text = f"text-to-image returned 400: {error.message}"
            return Refusal(400, text, "unsafe", message=error.message)
        case FailureKind.OUT_OF_MEMORY:
            # Another node may have the memory, and this one has it for smaller images.
            text = f"insufficient capacity: {error.message}"
            message = f"no capacity available for runner: {error.message}"
            return Refusal(503, text, "out_of_memory", message=message)
        case FailureKind.WORKER_CRASHED:
            return Refusal(500, "the image worker crashed during this job", "worker_crashed")
        case FailureKind.INTERNAL:
            return Refusal(500, "Text-to-image pipeline error.", "pipeline_error")
