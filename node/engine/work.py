"""What goes into the engine and what comes out: plain values, importable without torch.

Every class here is frozen and picklable, and msgspec encodes it as it is for the worker's pipe.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Literal

from network.units import JobId, ModelId
from network.wire.safety import Safety

#: LoRA ids with their weights, sorted, without such as have no effect.
LoraSet = tuple[tuple[str, float], ...]


@dataclass(frozen=True, slots=True)
class ImageJob:
    """One request's work: as many images as `seeds`, alike in everything but the seed.

    `prompts` and `negative_prompts` hold one text per text encoder that the model's family can
    address apart; a part left out falls back to the first one. Width and height are pixels.
    The texts stay out of `repr`: a job may end up in a log line or a traceback.
    `true_guidance` is the scale between prompt and negative prompt in models whose `guidance` is
    an input instead (FLUX); 1 or below leaves the negative prompt out. A `deterministic` job's
    images have the same bytes whatever else is under way: they share no forward pass.
    """

    job_id: JobId
    model_id: ModelId
    prompts: tuple[str, ...] = field(repr=False)
    width: int
    height: int
    steps: int
    guidance: float
    seeds: tuple[int, ...]
    negative_prompts: tuple[str, ...] = field(default=(), repr=False)
    loras: tuple[tuple[str, float], ...] = ()
    safety_check: bool = True
    true_guidance: float = 1.0
    deterministic: bool = False

    @property
    def lora_set(self) -> LoraSet:
        """What `loras` come to; equal sets share a forward pass, whatever their order was."""
        return tuple(sorted((name, weight) for name, weight in self.loras if weight))


@dataclass(frozen=True, slots=True)
class EncodedImage:
    """One finished image."""

    png: bytes = field(repr=False)
    seed: int
    safety: Safety = Safety.UNCHECKED


@dataclass(frozen=True, slots=True)
class ImageResult:
    """A job's images in the order of its seeds; `denoise_seconds` is their time in the model.

    `warnings` tell the client what of his request had no effect, without quoting it.
    """

    images: tuple[EncodedImage, ...]
    denoise_seconds: float
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a job is: denoise steps done of all its images' steps. (0, total) means started."""

    job_id: JobId
    done_steps: int
    total_steps: int


@dataclass(frozen=True, slots=True)
class Preview:
    """What a job's image `index` looks like after `step` of its steps.

    `jpeg` is at most 256 pixels long and wide. It is drawn from the latents: blurred, and seen by
    no safety checker.
    """

    job_id: JobId
    index: int
    step: int
    jpeg: bytes = field(repr=False)


@dataclass(frozen=True, slots=True)
class SchedulerChoice:
    """One of diffusers' scheduler classes, and its options where they are not the model's own."""

    name: str
    options: tuple[tuple[str, bool | int | float | str], ...] = ()


@dataclass(frozen=True, slots=True)
class ModelSpec:
    """A model folder in diffusers layout. `warm` ones load at start, others at first use.

    `scheduler` replaces the one that the folder names.
    """

    model_id: ModelId
    path: Path
    warm: bool = True
    dtype: Literal["auto", "float32", "float16", "bfloat16"] = "auto"
    scheduler: SchedulerChoice | None = None


@dataclass(frozen=True, slots=True)
class LoraSpec:
    """A LoRA's id and its safetensors file."""

    lora_id: str
    path: Path


@dataclass(frozen=True, slots=True)
class ModelFacts:
    """What a loaded model can take, in the terms of `network.wire.messages.Limits`.

    The rest is what its files say of how it wants to be used: the side in pixels it was trained
    on, whether a guidance scale changes its images, whether it was distilled to a few steps.
    """

    size_multiple: int = 8
    prompt_parts: int = 1
    max_loras: int = 0
    native_size: int | None = None
    guided: bool = True
    few_steps: bool = False


@dataclass(frozen=True, slots=True)
class ModelState:
    """A model as the engine sees it now.

    `cold`: known, not in memory, loaded by the first job that asks for it. `detail` says in words
    why a model failed or what it is loading. `pace` is seconds per pixel and denoise step, a
    running mean over finished images; None until one was made. `load_seconds` is the way from
    disk, `swap_seconds` that from host memory, where a cold model's weights are if `in_host`.
    Images of `refused_pixels` and more did not fit into memory lately and are not tried again yet.
    """

    model_id: ModelId
    status: Literal["cold", "loading", "ready", "failed"]
    progress: float = 0.0
    detail: str = ""
    facts: ModelFacts | None = None
    load_seconds: float | None = None
    pace: float | None = None
    bytes: int | None = None
    swap_seconds: float | None = None
    in_host: bool = False
    refused_pixels: int | None = None

    @property
    def seconds_to_ready(self) -> float:
        """How long a job has to wait for this model's weights, as far as that was measured."""
        if self.status == "ready":
            return 0.0
        whole = self.swap_seconds if self.in_host else self.load_seconds
        return (whole or 0.0) * (1.0 - self.progress)


@dataclass(frozen=True, slots=True)
class SafetyState:
    """The safety checker as the engine sees it now; `detail` says in words why it failed.

    While it is not "ready", images that are to be checked wait or fail; "off": there is none.
    """

    checker: str
    policy: Literal["flag", "blur", "refuse"]
    status: Literal["off", "loading", "ready", "failed"]
    detail: str = ""


@dataclass(frozen=True, slots=True)
class Tally:
    """Images by how they ended; each image asked for is counted exactly once, when it ends.

    `batches` counts denoise steps by how many images shared them, and `step_seconds` is the time
    they took, both as of the worker's last heartbeat.
    """

    done: int = 0
    failed: int = 0
    cancelled: int = 0
    batches: Mapping[int, int] = field(default_factory=dict, compare=False)
    step_seconds: float = field(default=0.0, compare=False)


class FailureKind(StrEnum):
    """Why a job failed, by what the caller should do about it."""

    INVALID = "invalid"  # the request's fault: the message may go to the client
    UNSAFE = "unsafe"  # refused by the operator's policy: the message may go to the client
    OUT_OF_MEMORY = "out_of_memory"  # too large for this device now
    WORKER_CRASHED = "worker_crashed"  # tried twice, the worker died both times
    INTERNAL = "internal"  # ours: the message is for the operator


class EngineError(Exception):
    """The root of what `Engine.generate` raises."""


class EngineBusyError(EngineError):
    """The engine holds as many jobs as it may, or is closing; try again or elsewhere."""


class JobFailedError(EngineError):
    """This job will not yield images."""

    def __init__(self, kind: FailureKind, message: str) -> None:
        super().__init__(message)
        self.kind = kind
        self.message = message
