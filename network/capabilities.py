"""What a node offers and a job needs, in Livepeer's terms (wire, section 2).

A capability is a small number; AI pipelines are constrained further by model. Pure.
"""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Final

from network.units import ModelId

TEXT_TO_IMAGE: Final = 27
#: What every orchestrator advertises. A gateway's job asks for these as well as for its
#: pipeline, so that a node without them is silently passed over.
DEFAULT_CAPABILITIES: Final = frozenset([*range(13), 14, 26])
TEXT_TO_IMAGE_PIPELINE: Final = "text-to-image"

CAPABILITY_NAMES: Final[Mapping[int, str]] = {
    0: "H.264",
    1: "MPEGTS",
    2: "MP4",
    3: "Fractional framerates",
    4: "Storage direct",
    5: "Storage S3",
    6: "Storage GCS",
    7: "H264 Baseline profile",
    8: "H264 Main profile",
    9: "H264 High profile",
    10: "H264 Constrained, High profile",
    11: "GOP",
    12: "Auth token",
    14: "MPEG7 signature",
    15: "HEVC decode",
    16: "HEVC encode",
    17: "VP8 decode",
    18: "VP9 decode",
    19: "VP8 encode",
    20: "VP9 encode",
    21: "H264 Decode YUV444 8-bit",
    22: "H264 Decode YUV422 8-bit",
    23: "H264 Decode YUV444 10-bit",
    24: "H264 Decode YUV422 10-bit",
    25: "H264 Decode YUV420 10-bit",
    26: "Segment slicing",
    27: "Text to image",
    28: "Image to image",
    29: "Image to video",
    30: "Upscale",
    31: "Audio to text",
    32: "Segment anything 2",
    33: "Llm",
    34: "Image to text",
    35: "Live video to video",
    36: "Text to speech",
    37: "byoc",
}

_WORD_BITS: Final = 64
_VERSION: Final = re.compile(
    r"v?([0-9]{1,9})(?:\.([0-9]{1,9}))?(?:\.([0-9]{1,9}))?(?:-[0-9A-Za-z.-]+)?(?:\+[0-9A-Za-z.-]+)?",
    re.ASCII,
)


@dataclass(frozen=True, slots=True)
class ModelConstraint:
    """State of one model, offered by a node or asked for by a job.

    In a job's request `warm` means "must be warm" and `runner_version` is a minimum.
    """

    warm: bool
    #: Free slots. A model at 0 stays listed.
    capacity: int
    runner_version: str = ""
    capacity_in_use: int = 0


@dataclass(frozen=True, slots=True)
class Capabilities:
    """Livepeer's Capabilities message."""

    bits: frozenset[int]
    mandatories: frozenset[int] = frozenset()
    capacities: Mapping[int, int] = field(default_factory=dict)
    version: str = ""
    min_version: str = ""
    models: Mapping[int, Mapping[str, ModelConstraint]] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Match:
    """The orchestrator can do the job."""


@dataclass(frozen=True, slots=True)
class Mismatch:
    """The orchestrator cannot do the job, and why."""

    reason: str


def bitstring(bits: Iterable[int]) -> list[int]:
    """64-bit words, word 0 first, as many as needed; negative numbers are skipped."""
    words: list[int] = []
    for bit in bits:
        if bit < 0:
            continue
        place, offset = divmod(bit, _WORD_BITS)
        words.extend([0] * (place + 1 - len(words)))
        words[place] |= 1 << offset
    return words


def bits_of(words: Iterable[int]) -> frozenset[int]:
    """The capabilities whose bits are set."""
    return frozenset(
        place * _WORD_BITS + offset
        for place, word in enumerate(words)
        for offset in range(word.bit_length())
        if word >> offset & 1
    )


def capability_name(capability: int) -> str:
    """Livepeer's name of a capability, or its number."""
    return CAPABILITY_NAMES.get(capability, str(capability))


def capability_of(pipeline: str) -> int:
    """The capability of a pipeline such as "text-to-image"; ValueError if there is none."""
    name = (pipeline[:1].upper() + pipeline[1:]).replace("-", " ")
    for capability, known in CAPABILITY_NAMES.items():
        if known == name:
            return capability
    raise ValueError(f"there is no pipeline {pipeline!r}")


def pipeline_of(capability: int) -> str:
    """The pipeline of a capability, e.g. "text-to-image" for 27."""
    return capability_name(capability).lower().replace(" ", "-")


def job_capabilities(
    model_id: ModelId,
    version: str,
    *,
    min_version: str = "",
    runner_version: str = "",
    warm: bool = False,
) -> Capabilities:
    """What a text-to-image job on `model_id` asks of an orchestrator.

    `capacities` is filled because an orchestrator prices only what stands there.
    """
    bits = DEFAULT_CAPABILITIES | {TEXT_TO_IMAGE}
    need = ModelConstraint(warm=warm, capacity=0, runner_version=runner_version)
    return Capabilities(
        bits=bits,
        capacities=dict.fromkeys(sorted(bits), 1),
        version=version,
        min_version=min_version,
        models={TEXT_TO_IMAGE: {model_id: need}},
    )


def node_capabilities(models: Mapping[str, ModelConstraint], version: str) -> Capabilities:
    """What a text-to-image node advertises."""
    bits = DEFAULT_CAPABILITIES | {TEXT_TO_IMAGE}
    return Capabilities(
        bits=bits,
        capacities=dict.fromkeys(sorted(bits), 1),
        version=version,
        models={TEXT_TO_IMAGE: dict(models)},
    )


def compatible(job: Capabilities, orchestrator: Capabilities) -> Match | Mismatch:
    """Livepeer's compatibility test (wire, section 2.3), with the reason it lacks."""
    if not new_enough(orchestrator.version, job.min_version):
        return Mismatch(
            f"version {orchestrator.version or 'unknown'} is older than {job.min_version}"
        )
    if unserved := orchestrator.mandatories - job.bits:
        return Mismatch(f"the job lacks what the orchestrator demands: {_names(unserved)}")
    if missing := job.bits - orchestrator.bits:
        return Mismatch(f"missing capabilities: {_names(missing)}")
    for capability, needs in job.models.items():
        offers = orchestrator.models.get(capability)
        if offers is None:  # an orchestrator that lists no models constrains none
            continue
        for model_id, need in needs.items():
            if reason := _model_mismatch(model_id, need, offers.get(model_id)):
                return Mismatch(reason)
    return Match()


def _model_mismatch(model_id: str, need: ModelConstraint, offer: ModelConstraint | None) -> str:
    if offer is None:
        return f"model {model_id} is not offered"
    if need.warm and not offer.warm:
        return f"model {model_id} is not warm"
    if not new_enough(offer.runner_version, need.runner_version):
        return (
            f"runner {offer.runner_version or 'unknown'} of {model_id} is older than "
            f"{need.runner_version}"
        )
    return ""


def is_version(text: str) -> bool:
    """Whether it is a version that others can be compared with."""
    return _release(text) is not None


def new_enough(version: str, least: str) -> bool:
    """Pre-release suffixes are ignored; a minimum that is no version demands nothing."""
    wanted = _release(least)
    if wanted is None:
        return True
    found = _release(version)
    return found is not None and found >= wanted


def _release(version: str) -> tuple[int, int, int] | None:
    found = _VERSION.fullmatch(version)
    if found is None:
        return None
    major, minor, patch = (int(part or 0) for part in found.groups())
    return major, minor, patch


def _names(capabilities: Iterable[int]) -> str:
    return ", ".join(capability_name(capability) for capability in sorted(capabilities))
