"""The body of OpenAI's `POST /v1/images/generations`, read as a request for images. Pure.

Fields are those of https://platform.openai.com/docs/api-reference/images/create, and beside them
Livepeer's own where it has more to say (steps, seed, guidance, negative prompt, LoRAs).
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Final, Literal

import orjson
from pydantic import AllowInfNan, BaseModel, ConfigDict, Field, Strict, ValidationError

from gateway.api.bounds import Bounds
from gateway.api.output import Format, Output, Quality
from network.errors import FieldFault, Problem, ProblemError
from network.units import ModelId
from network.wire import problems
from network.wire.limits import Limits
from network.wire.messages import TextToImageRequest, WholeNumber

_SIZE: Final = re.compile("([0-9]{1,5})x([0-9]{1,5})")
#: What OpenAI draws unless told otherwise, in pixels.
_USUAL_SIDE: Final = 1024
_LISTED_FAULTS: Final = 8
MOST_PARTIAL_IMAGES: Final = 3
BEST_QUALITY: Final = 100
IMAGE_EVENT: Final = "image_generation.completed"
PARTIAL_EVENT: Final = "image_generation.partial_image"
#: Livepeer's names, as OpenAI's clients know them.
_NAMES: Final = {
    "model_id": "model",
    "num_images_per_prompt": "n",
    "width": "size",
    "height": "size",
}
#: Fields that are handed on as they are, and judged with the rest of the request.
_SAME: Final = (
    "prompt",
    "seed",
    "num_inference_steps",
    "guidance_scale",
    "negative_prompt",
    "safety_check",
    "deterministic",
)
#: Accepted, because clients send them by habit, and told in the warnings to be without effect.
WITHOUT_EFFECT: Final = ("quality", "style", "moderation", "input_fidelity")

_Str = Annotated[str, Strict()]
_Bool = Annotated[bool, Strict()]
_Weight = Annotated[float, Strict(), AllowInfNan(allow_inf_nan=False)]


class _Body(BaseModel):
    model_config = ConfigDict(
        frozen=True, extra="ignore", hide_input_in_errors=True, protected_namespaces=()
    )

    model: _Str = ""
    size: _Str = "auto"
    response_format: Literal["url", "b64_json"] = "url"
    output_format: Format = "png"
    #: In spite of its name 100, the default, is the best quality.
    output_compression: Quality = BEST_QUALITY
    embed_metadata: _Bool = False
    embed_prompt: _Bool = False
    background: Literal["auto", "opaque"] = "auto"
    stream: _Bool = False
    partial_images: Annotated[WholeNumber, Field(ge=0, le=MOST_PARTIAL_IMAGES)] = 0
    #: As text, which is how Livepeer has it, or as the object that the text stands for.
    loras: _Str | dict[str, _Weight] = ""


@dataclass(frozen=True, slots=True)
class OpenAiRequest:
    """What was asked, and how it is to be answered."""

    wanted: TextToImageRequest
    output: Output
    inline: bool
    stream: bool
    partial_images: int
    warnings: tuple[str, ...]


def parse_openai(body: bytes, bounds: Bounds) -> OpenAiRequest:
    """The request within its model's limits. Raises ProblemError 400, as OpenAI answers."""
    raw = _object(body)
    try:
        asked = _Body.model_validate(raw)
    except ValidationError as error:
        raise ProblemError(_fields_problem(error)) from None
    model = ModelId(asked.model or bounds.default_model)
    try:
        wanted = bounds.check(_wanted(raw, asked, model, bounds.of(model)))
    except ValidationError as error:
        raise ProblemError(_fields_problem(error)) from None
    except ProblemError as error:
        raise ProblemError(renamed(error.problem)) from None
    without_effect = [name for name in WITHOUT_EFFECT if name in raw]
    if asked.output_format == "png" and asked.output_compression != BEST_QUALITY:
        without_effect.append("output_compression")
    return OpenAiRequest(
        wanted=wanted,
        output=Output(
            asked.output_format,
            asked.output_compression,
            asked.embed_metadata,
            asked.embed_prompt,
        ),
        inline=asked.response_format == "b64_json",
        stream=asked.stream,
        partial_images=asked.partial_images,
        warnings=tuple(f"{name} has no effect here" for name in without_effect),
    )


def renamed(problem: Problem) -> Problem:
    """The problem in the words of OpenAI's fields; what is not valid is 400 there."""
    faults = [
        FieldFault((*fault.loc[:1], *_renamed(fault.loc[1:])), fault.message, fault.type)
        for fault in problem.fields
    ]
    if faults and faults[0].loc[:1] == ("body",):
        told = problems.invalid_fields(faults)
        return problems.bad_request(told.message, problem.code, told.param)
    param = _NAMES.get(problem.param or "", problem.param)
    return Problem(
        problem.status,
        problem.message,
        problem.type,
        problem.code,
        param=param,
        fields=problem.fields,
        headers=problem.headers,
    )


def _renamed(place: tuple[str | int, ...]) -> tuple[str | int, ...]:
    return tuple(_NAMES.get(part, part) if isinstance(part, str) else part for part in place)


def _object(body: bytes) -> Mapping[str, Any]:
    try:
        value = orjson.loads(body)
    except orjson.JSONDecodeError as error:
        message = f"The body is not valid JSON at line {error.lineno} column {error.colno}."
        raise ProblemError(problems.bad_request(message, "json_invalid")) from None
    if not isinstance(value, dict):
        raise ProblemError(problems.bad_request("The body must be a JSON object.", "json_invalid"))
    # OpenAI's fields may be null, which says as much as leaving them out.
    return {name: field for name, field in value.items() if field is not None}


def _wanted(
    raw: Mapping[str, Any], asked: _Body, model: ModelId, limits: Limits
) -> TextToImageRequest:
    width, height = _size(asked.size, limits)
    usual = TextToImageRequest.model_fields
    is_text = isinstance(asked.loras, str)
    fields: dict[str, Any] = {
        # A client that did not choose must not be refused for a default of ours.
        "num_inference_steps": min(usual["num_inference_steps"].default, limits.max_steps),
        "guidance_scale": min(usual["guidance_scale"].default, limits.max_guidance),
        "num_images_per_prompt": raw.get("n", 1),
        "loras": asked.loras if is_text else orjson.dumps(asked.loras).decode(),
        "model_id": model,
        "width": width,
        "height": height,
    }
    return TextToImageRequest.model_validate(
        {**fields, **{name: raw[name] for name in _SAME if name in raw}}
    )


def _size(text: str, limits: Limits) -> tuple[int, int]:
    if text == "auto":
        most = min(
            _USUAL_SIDE, limits.sides(limits.max_width)[1], limits.sides(limits.max_height)[1]
        )
        return most, most
    found = _SIZE.fullmatch(text)
    if found is None:
        message = 'size is width and height in pixels, as "1024x1024", or "auto".'
        raise ProblemError(problems.bad_request(message, "invalid_size", "size"))
    return int(found[1]), int(found[2])


def _fields_problem(error: ValidationError) -> Problem:
    found = error.errors(include_url=False, include_context=False, include_input=False)
    faults = [
        FieldFault(("body", *_renamed(entry["loc"])), entry["msg"], entry["type"])
        for entry in found[:_LISTED_FAULTS]
    ]
    told = problems.invalid_fields(faults)
    return problems.bad_request(told.message, "validation_error", told.param)
