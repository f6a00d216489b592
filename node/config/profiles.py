"""Which steps, guidance and scheduler suit a model, and what becomes of a client's values. Pure.

Livepeer's official clients send every field, filled with fixed defaults: 50 steps and guidance 7.5
come from people who never thought of either. A model distilled to four steps then takes twelve
times too long for a worse image. What equals these defaults is therefore taken as not chosen, and
is the profile's to fill; whatever else a client sends is kept.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, Literal

from network.units import ModelId
from network.wire.messages import TextToImageRequest

Value = bool | int | float | str
Field = Literal["steps", "guidance"]

#: The diffusers schedulers that a profile may name: text-to-image samplers that need no other package.
SCHEDULERS: Final = frozenset(
    {
        "DDIMScheduler",
        "DDPMScheduler",
        "DEISMultistepScheduler",
        "DPMSolverMultistepScheduler",
        "DPMSolverSinglestepScheduler",
        "EulerAncestralDiscreteScheduler",
        "EulerDiscreteScheduler",
        "FlowMatchEulerDiscreteScheduler",
        "FlowMatchHeunDiscreteScheduler",
        "HeunDiscreteScheduler",
        "KDPM2AncestralDiscreteScheduler",
        "KDPM2DiscreteScheduler",
        "LCMScheduler",
        "PNDMScheduler",
        "TCDScheduler",
        "UniPCMultistepScheduler",
    }
)


@dataclass(frozen=True, slots=True)
class Profile:
    """A model's own defaults; None leaves a value to the client, or the scheduler to the model.

    `size` is the width and height it was trained for, in pixels; it replaces nothing. A field in
    `fixed` has the profile's value whatever a client asks for. `source` says whose advice it is.
    """

    steps: int | None = None
    guidance: float | None = None
    size: tuple[int, int] | None = None
    scheduler: str | None = None
    scheduler_options: tuple[tuple[str, Value], ...] = ()
    fixed: frozenset[Field] = frozenset()
    source: str = ""


#: What a client that chose nothing sends.
CLIENT_STEPS: Final[int] = TextToImageRequest.model_fields["num_inference_steps"].default
CLIENT_GUIDANCE: Final[float] = TextToImageRequest.model_fields["guidance_scale"].default

_TRAILING: Final[tuple[tuple[str, Value], ...]] = (("timestep_spacing", "trailing"),)
_TURBO: Final = "diffusers' page on SDXL Turbo: 1 to 4 steps, guidance 0, trailing timesteps"
_LIGHTNING: Final = (
    "ByteDance's card of SDXL-Lightning: as many steps as the checkpoint has, guidance 0, Euler "
    "with trailing timesteps"
)
_LCM: Final = "diffusers' page on latent consistency models: 4 to 8 steps"


def _lightning(steps: int) -> Profile:
    return Profile(
        steps,
        0.0,
        (1024, 1024),
        "EulerDiscreteScheduler",
        _TRAILING,
        frozenset({"steps", "guidance"}),
        _LIGHTNING,
    )


#: By the model's id. Each is what the model's makers, or diffusers' documentation, advise.
KNOWN: Final[Mapping[ModelId, Profile]] = {
    ModelId("stabilityai/sd-turbo"): Profile(
        4, 0.0, (512, 512), "EulerDiscreteScheduler", _TRAILING, source=_TURBO
    ),
    ModelId("stabilityai/sdxl-turbo"): Profile(
        4, 0.0, (512, 512), "EulerAncestralDiscreteScheduler", _TRAILING, source=_TURBO
    ),
    ModelId("ByteDance/SDXL-Lightning"): _lightning(8),
    ModelId("ByteDance/SDXL-Lightning-2step"): _lightning(2),
    ModelId("ByteDance/SDXL-Lightning-4step"): _lightning(4),
    ModelId("ByteDance/SDXL-Lightning-8step"): _lightning(8),
    ModelId("SG161222/RealVisXL_V4.0_Lightning"): Profile(
        6,
        1.5,
        (1024, 1024),
        source="published guides of its users: 4 to 6 steps, guidance 1 to 2",
    ),
    ModelId("SimianLuo/LCM_Dreamshaper_v7"): Profile(
        8, 8.0, (768, 768), "LCMScheduler", source=f"{_LCM}; this one takes guidance as an input"
    ),
    ModelId("black-forest-labs/FLUX.1-schnell"): Profile(
        4,
        0.0,
        (1024, 1024),
        source="diffusers' page on Flux: guidance 0, few steps; 4 in its card",
    ),
    ModelId("black-forest-labs/FLUX.1-dev"): Profile(
        None, 3.5, (1024, 1024), source="diffusers' page on Flux: distilled guidance of 3.5"
    ),
    ModelId("stabilityai/stable-diffusion-3.5-large-turbo"): Profile(
        4, 0.0, (1024, 1024), source="Stability AI's demo of the model: 4 steps, guidance 0"
    ),
}


@dataclass(frozen=True, slots=True)
class Sampling:
    """How an image is sampled."""

    steps: int
    guidance: float


def replaced(asked: Sampling, used: Sampling) -> tuple[str, ...]:
    """Say, for the client, which of its values had no effect."""
    words = []
    if used.steps != asked.steps:
        words.append(f"num_inference_steps {used.steps} for {asked.steps}")
    if used.guidance != asked.guidance:
        words.append(f"guidance_scale {used.guidance:g} for {asked.guidance:g}")
    return (f"by the model's profile: {' and '.join(words)}",) if words else ()


def sampling(asked: Sampling, profile: Profile | None) -> Sampling:
    """Return what a request gets, for what it asked; without a profile, just that."""
    if profile is None:
        return asked
    steps, guidance = asked.steps, asked.guidance
    if profile.steps is not None and ("steps" in profile.fixed or steps == CLIENT_STEPS):
        steps = profile.steps
    if profile.guidance is not None and (
        "guidance" in profile.fixed or guidance == CLIENT_GUIDANCE
    ):
        guidance = profile.guidance
    return Sampling(steps, guidance)
