"""What the engine's two processes say to each other, and how it is framed.

A frame is a 4-byte big-endian length and one MessagePack map with its type under "t". Both ends
are ours and of one version, but a frame is checked all the same: a library that writes into the
wrong file descriptor, or a worker killed half-way through a frame, must end in an error that
restarts the worker and never in a half-believed message.
"""

import struct
from collections.abc import Sequence
from typing import Literal

import msgspec

from network.wire.safety import Safety
from node.engine.options import Acceleration, EngineOptions, SafetyOptions
from node.engine.work import (
    FailureKind,
    ImageJob,
    LoraSpec,
    ModelSpec,
    ModelState,
    SchedulerChoice,
)

MAX_FRAME = 256 * 2**20  #: bytes; the largest image we would ever carry stays far below
_LENGTH = struct.Struct(">I")


class ChannelError(Exception):
    """The other process sent bytes that are no message. The channel cannot be used any more."""


class _Message(msgspec.Struct, frozen=True, tag_field="t"):
    """The base of all messages."""


class Model(msgspec.Struct, frozen=True):
    """A ModelSpec with its path as text, and what a former worker has shown of the model.

    `broken` says why it is not to be loaded; empty: it may be.
    """

    model_id: str
    path: str
    warm: bool
    dtype: Literal["auto", "float32", "float16", "bfloat16"]
    scheduler: SchedulerChoice | None = None
    load_seconds: float | None = None
    pace: float | None = None
    broken: str = ""

    @classmethod
    def of(cls, spec: ModelSpec, known: ModelState, broken: str = "") -> "Model":
        return cls(
            model_id=spec.model_id,
            path=str(spec.path),
            warm=spec.warm,
            dtype=spec.dtype,
            scheduler=spec.scheduler,
            load_seconds=known.load_seconds,
            pace=known.pace,
            broken=broken,
        )


class Lora(msgspec.Struct, frozen=True):
    """A LoraSpec with its path as text."""

    lora_id: str
    path: str

    @classmethod
    def of(cls, spec: LoraSpec) -> "Lora":
        return cls(spec.lora_id, str(spec.path))


class Setup(_Message, frozen=True, tag="setup"):
    """The first message to a worker: what to serve and within which bounds (seconds, bytes).

    A budget of None is the worker's own choice, by the memory that it finds.
    """

    models: tuple[Model, ...]
    device: str
    max_active_samples: int
    longest_step: float
    longest_load: float
    memory_budget: int | None = None
    host_memory_budget: int | None = None
    forget_after: float = 300.0
    acceleration: Acceleration = Acceleration()
    preview_steps: int = 1
    preview_interval: float = 0.1
    loras: tuple[Lora, ...] = ()
    lora_cache_bytes: int = 0
    max_lora_bytes: int = 0
    max_lora_rank: int = 0
    safety: SafetyOptions = SafetyOptions()
    max_batch: int = 32
    batch_file: str | None = None
    prompt_cache_bytes: int = 128 * 2**20

    @classmethod
    def of(
        cls,
        models: tuple[Model, ...],
        device: str,
        options: EngineOptions,
        loras: Sequence[LoraSpec] = (),
    ) -> "Setup":
        return cls(
            models=models,
            device=device,
            max_active_samples=options.max_active_samples,
            memory_budget=options.memory_budget,
            host_memory_budget=options.host_memory_budget,
            longest_step=options.longest_step,
            longest_load=options.longest_load,
            forget_after=options.forget_after,
            acceleration=options.acceleration,
            preview_steps=options.preview_steps,
            preview_interval=options.preview_interval,
            loras=tuple(Lora.of(spec) for spec in loras),
            lora_cache_bytes=options.lora_cache_bytes,
            max_lora_bytes=options.max_lora_bytes,
            max_lora_rank=options.max_lora_rank,
            safety=options.safety,
            max_batch=options.max_batch,
            batch_file=None if options.batch_file is None else str(options.batch_file),
            prompt_cache_bytes=options.prompt_cache_bytes,
        )


class Submit(_Message, frozen=True, tag="submit"):
    """Make the images of `job` whose places among its seeds are in `wanted`."""

    ticket: int
    job: ImageJob
    wanted: tuple[int, ...]


class Watch(_Message, frozen=True, tag="watch"):
    """Make previews of a job's images from now on, or no more of them."""

    ticket: int
    wanted: bool


class Cancel(_Message, frozen=True, tag="cancel"):
    """Forget a job, at the next step boundary at the latest."""

    ticket: int


class Stop(_Message, frozen=True, tag="stop"):
    """End the process."""


class Hello(_Message, frozen=True, tag="hello"):
    """The worker has imported what it needs and takes jobs."""

    device: str
    threads: int


#: "work" is expected to use the processor or a device, "read" may depend on a disk or a network,
#: and "wait" is for another thread that tells of its own activity.
ActivityKind = Literal["work", "read", "wait"]


class Activity(msgspec.Struct, frozen=True):
    """What one of the worker's threads is at, for how long, and how long that may take. Seconds.

    For `still` of them it showed no sign of life, while for `helped` of those some thread stirred
    that may work for it. `effort` is the work that went into it so far; beyond `limit` it is more
    than such work can take, which is not known of all work.
    """

    name: str
    age: float
    allowed: float
    kind: ActivityKind = "work"
    still: float = 0.0
    helped: float = 0.0
    effort: float = 0.0
    limit: float | None = None


class Beat(_Message, frozen=True, tag="beat"):
    """A sign of life, sent by a thread that does nothing else."""

    activities: tuple[Activity, ...]
    resident_bytes: int
    batches: dict[
        int, int
    ] = {}  #: denoise steps since the last beat, by how many images shared one
    step_seconds: float = 0.0  #: which those steps took


class ModelChanged(_Message, frozen=True, tag="model"):
    """A model's state as the worker sees it now."""

    state: ModelState


class CheckerChanged(_Message, frozen=True, tag="checker"):
    """The safety checker is loaded, or cannot be; `detail` says why."""

    status: Literal["ready", "failed"]
    detail: str = ""


class Started(_Message, frozen=True, tag="started"):
    """The worker has begun with this job."""

    ticket: int


class Warned(_Message, frozen=True, tag="warned"):
    """What of the job has no effect, in words that quote no prompt."""

    ticket: int
    warnings: tuple[str, ...]


class Stepped(_Message, frozen=True, tag="stepped"):
    """Denoise steps done since the job was submitted to this worker, over its wanted images."""

    ticket: int
    done: int


class Previewed(_Message, frozen=True, tag="preview"):
    """What an image of a watched job looks like after `step` steps; `jpeg` is a small picture."""

    ticket: int
    index: int
    step: int
    jpeg: bytes


class ImageDone(_Message, frozen=True, tag="image"):
    """One image, finished; `index` is its place among the job's seeds."""

    ticket: int
    index: int
    png: bytes
    denoise_seconds: float
    safety: Safety = Safety.UNCHECKED


class Failed(_Message, frozen=True, tag="failed"):
    """The job ends without (all of) its images."""

    ticket: int
    kind: FailureKind
    message: str


class Dying(_Message, frozen=True, tag="dying"):
    """The device's state is beyond repair; the process exits right after this."""

    reason: str


ToWorker = Setup | Submit | Watch | Cancel | Stop
FromWorker = (
    Hello
    | Beat
    | ModelChanged
    | CheckerChanged
    | Started
    | Warned
    | Stepped
    | Previewed
    | ImageDone
    | Failed
    | Dying
)

_encoder = msgspec.msgpack.Encoder()
_to_worker: msgspec.msgpack.Decoder[ToWorker] = msgspec.msgpack.Decoder(ToWorker)
_from_worker: msgspec.msgpack.Decoder[FromWorker] = msgspec.msgpack.Decoder(FromWorker)


def encode_frame(message: ToWorker | FromWorker) -> bytes:
    """Return one whole frame. Raises ChannelError when it would be too long."""
    body = _encoder.encode(message)
    if len(body) > MAX_FRAME:
        raise ChannelError(f"a frame of {len(body)} bytes is above the limit of {MAX_FRAME}")
    return _LENGTH.pack(len(body)) + body


HEADER_BYTES = _LENGTH.size


def body_length(header: bytes) -> int:
    """Return how many bytes follow this header. Raises ChannelError when that cannot be."""
    (length,) = _LENGTH.unpack(header)
    if not 0 < length <= MAX_FRAME:
        raise ChannelError(f"a frame announces {length} bytes; the limit is {MAX_FRAME}")
    return int(length)


def decode_for_worker(body: bytes) -> ToWorker:
    """Decode a frame's body on the worker's side. Raises ChannelError."""
    try:
        return _to_worker.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise ChannelError(f"the engine sent no message: {_without_values(error)}") from None


def decode_from_worker(body: bytes) -> FromWorker:
    """Decode a frame's body on the engine's side. Raises ChannelError."""
    try:
        return _from_worker.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise ChannelError(f"the worker sent no message: {_without_values(error)}") from None


def _without_values(error: Exception) -> str:
    # msgspec quotes offending values of tagged unions; one of them might be a prompt.
    return type(error).__name__
