"""The HTTP bodies of text-to-image, parsed and bounded once on entry.

Fields and defaults are those of Livepeer's `POST /text-to-image`; the bounds are ours and
published by `network.wire.schema`. Past this edge a request is valid by type.
"""

import functools
import re
from typing import Annotated, Final, NoReturn

import orjson
from pydantic import AllowInfNan, BaseModel, BeforeValidator, ConfigDict, Strict, ValidationError
from pydantic_core import PydanticCustomError

from network.errors import FieldFault, Problem, ProblemError
from network.wire import problems
from network.wire.limits import (
    BLANK,
    LARGEST_SEED,
    MAX_LORAS_CHARS,
    MAX_MODEL_ID_CHARS,
    Limits,
    loras_pattern,
    model_id_pattern,
)
from network.wire.safety import Safety
from network.wire.schema import problem_schema, request_schema, response_schema

__all__ = [
    "LARGEST_SEED",
    "FieldFault",
    "ImageResponse",
    "Limits",
    "Media",
    "Problem",
    "ProblemError",
    "TextToImageRequest",
    "WholeNumber",
    "check_limits",
    "parse_loras",
    "parse_request",
    "problem_schema",
    "prompt_parts",
    "request_schema",
    "response_schema",
]

_NOT_BLANK: Final = re.compile(f"[^{BLANK}]")
_MODEL_ID: Final = re.compile(model_id_pattern())
_LISTED_FAULTS: Final = 16


def _whole(value: object) -> object:
    """JSON has one number type: 576.0 is the integer 576, 576.5 is none."""
    return int(value) if isinstance(value, float) and value.is_integer() else value


def _present(value: object) -> object:
    """The default of `seed` is its absence; an explicit null is a mistake."""
    if value is None:
        raise PydanticCustomError("int_type", "Input should be a valid integer")
    return _whole(value)


#: An integer that may be written as 576.0, and not as text.
WholeNumber = Annotated[int, Strict(), BeforeValidator(_whole)]
_Float = Annotated[float, Strict(), AllowInfNan(allow_inf_nan=False)]
_Str = Annotated[str, Strict()]
_Bool = Annotated[bool, Strict()]
_Seed = Annotated[Annotated[int, Strict()] | None, BeforeValidator(_present)]


class TextToImageRequest(BaseModel):
    """Body of `POST /text-to-image`; unknown keys are ignored, null is refused."""

    # Prompts are private: an error names the field and never echoes the input.
    model_config = ConfigDict(
        frozen=True, extra="ignore", hide_input_in_errors=True, protected_namespaces=()
    )

    prompt: _Str
    #: "" means the gateway's default model.
    model_id: _Str = ""
    #: A JSON object in a string: adapter name to weight.
    loras: _Str = ""
    height: WholeNumber = 576
    width: WholeNumber = 1024
    guidance_scale: _Float = 7.5
    negative_prompt: _Str = ""
    safety_check: _Bool = True
    #: None means that the gateway draws one.
    seed: _Seed = None
    num_inference_steps: WholeNumber = 50
    num_images_per_prompt: WholeNumber = 1
    #: Ours: the same bytes for the same request at any load. Sent on only where it is set.
    deterministic: _Bool = False


class Media(BaseModel):
    """One image of an answer; clients require the first three fields."""

    model_config = ConfigDict(frozen=True)

    url: str
    seed: int
    nsfw: bool
    safety: Safety = Safety.UNKNOWN


class ImageResponse(BaseModel):
    """Body of a 200."""

    model_config = ConfigDict(frozen=True)

    images: tuple[Media, ...]


def parse_request(body: bytes) -> TextToImageRequest:
    """The request in `body`, with the types of the spec but not yet bounded.

    Raises ProblemError 422 for everything that is not such an object: bad JSON or UTF-8,
    nesting beyond 1024 levels, missing prompt, wrong types.
    """
    try:
        value = orjson.loads(body)
    except orjson.JSONDecodeError as error:
        raise _json_fault(body, error) from None
    if not isinstance(value, dict):
        raise _refused(FieldFault(("body",), "Input should be a JSON object", "dict_type"))
    try:
        return TextToImageRequest.model_validate(value)
    except ValidationError as error:
        raise _refused(*_faults_of(error)) from None


def check_limits(request: TextToImageRequest, limits: Limits) -> None:
    """Raise ProblemError unless `request` is within `limits`.

    422 for numbers and lengths out of bounds, all of them in one answer; 400 for texts that
    say nothing or ask for what the model family lacks.
    """
    faults = _number_faults(request, limits) + _length_faults(request, limits)
    if faults:
        raise _refused(*faults)
    _check_prompts(request, limits)
    if request.loras:
        parse_loras(request.loras, limits)


def prompt_parts(text: str) -> tuple[str, ...]:
    """The prompts for a family's text encoders, in order; a lone prompt stays untouched."""
    if "|" not in text:
        return (text,)
    return tuple(part.strip() for part in text.split("|"))


def parse_loras(text: str, limits: Limits) -> tuple[tuple[str, float], ...]:
    """Adapter names and weights from the `loras` field; "" and "{}" are none.

    Raises ProblemError 400 with the words of Livepeer's runner where it has some.
    """
    if not text:
        return ()
    if len(text) > MAX_LORAS_CHARS or not _loras(limits.max_loras).fullmatch(text):
        raise ProblemError(_loras_problem(text, limits))
    values: dict[str, float | str] = orjson.loads(text) if text.strip() else {}
    return tuple((name, float(weight)) for name, weight in values.items())


@functools.cache
def _loras(most: int) -> re.Pattern[str]:
    return re.compile(loras_pattern(most))


def _loras_problem(text: str, limits: Limits) -> Problem:
    # Only explains a text that the pattern has refused already.
    value: object = None
    if len(text) <= MAX_LORAS_CHARS:
        try:
            value = orjson.loads(text)
        except orjson.JSONDecodeError:
            return problems.bad_request("Unable to parse 'loras' as JSON.", param="loras")
    if not isinstance(value, dict):
        message = (
            f"'loras' must be a JSON object of names and weights, at most {MAX_LORAS_CHARS} "
            "characters in a string."
        )
    elif len(value) > limits.max_loras:
        message = f"Too many LoRas provided. Maximum is {limits.max_loras}."
    elif not all(_is_weight(weight) for weight in value.values()):
        message = "All strengths must be numbers greater than or equal to 0.0 and below 100."
    else:
        message = (
            "A LoRa name is 1 to 128 letters, digits, '.', '_', '/' or '-', given once; its "
            "strength is a plain number such as 0.8."
        )
    return problems.bad_request(message, param="loras")


def _is_weight(value: object) -> bool:
    try:
        number = float(value) if isinstance(value, int | float | str) else -1.0
    except ValueError:
        return False
    return not isinstance(value, bool) and 0 <= number < 100  # noqa: PLR2004  see the message


def _number_faults(request: TextToImageRequest, limits: Limits) -> list[FieldFault]:
    faults: list[FieldFault] = []
    last_seed = LARGEST_SEED + 1 - min(max(request.num_images_per_prompt, 1), limits.max_images)
    for name, value, largest in (
        ("height", request.height, limits.max_height),
        ("width", request.width, limits.max_width),
    ):
        _check_side(faults, name, value, limits, largest)
    for name, number, least, most in (
        ("guidance_scale", request.guidance_scale, 0, limits.max_guidance),
        ("seed", request.seed or 0, 0, last_seed),
        ("num_inference_steps", request.num_inference_steps, 1, limits.max_steps),
        ("num_images_per_prompt", request.num_images_per_prompt, 1, limits.max_images),
    ):
        if not least <= number <= most:
            faults.append(_out_of_bounds(name, number, least, most))
    return faults


def _check_side(
    faults: list[FieldFault], name: str, value: int, limits: Limits, largest: int
) -> None:
    least, most = limits.sides(largest)
    if not least <= value <= most:
        faults.append(_out_of_bounds(name, value, least, most))
    elif value % limits.size_multiple:
        below = value - value % limits.size_multiple
        message = (
            f"Input should be a multiple of {limits.size_multiple}; the nearest are "
            f"{below} and {below + limits.size_multiple}"
        )
        faults.append(FieldFault(("body", name), message, "multiple_of"))


def _out_of_bounds(name: str, value: float, least: float, most: float) -> FieldFault:
    if value < least:
        message = f"Input should be greater than or equal to {least}"
        return FieldFault(("body", name), message, "greater_than_equal")
    message = f"Input should be less than or equal to {most}"
    if name == "seed" and most < LARGEST_SEED:
        message += ", so that every image of the request has a 32-bit seed"
    return FieldFault(("body", name), message, "less_than_equal")


def _length_faults(request: TextToImageRequest, limits: Limits) -> list[FieldFault]:
    faults = [
        FieldFault(("body", name), f"Input should have at most {most} characters", "too_long")
        for name, text, most in (
            ("prompt", request.prompt, limits.max_prompt_chars),
            ("negative_prompt", request.negative_prompt, limits.max_prompt_chars),
            ("model_id", request.model_id, MAX_MODEL_ID_CHARS),
        )
        if len(text) > most
    ]
    if not _MODEL_ID.fullmatch(request.model_id):
        message = "Input should have no control characters"
        faults.append(FieldFault(("body", "model_id"), message, "string_pattern_mismatch"))
    return faults


def _check_prompts(request: TextToImageRequest, limits: Limits) -> None:
    parts = request.prompt.split("|")
    empty = [place for place, part in enumerate(parts, 1) if not _NOT_BLANK.search(part)]
    if len(empty) == len(parts):
        raise ProblemError(problems.bad_request("Prompt must be provided.", param="prompt"))
    for name, count in (
        ("prompt", len(parts)),
        ("negative_prompt", request.negative_prompt.count("|") + 1),
    ):
        if count > limits.prompt_parts:
            _too_many_parts(name, count, limits.prompt_parts)
    if empty:
        message = f"Part {empty[0]} of the prompt, between '|', is empty."
        raise ProblemError(problems.bad_request(message, param="prompt"))


def _too_many_parts(name: str, count: int, most: int) -> NoReturn:
    taken = "one prompt; leave out '|'" if most == 1 else f"at most {most} prompts between '|'"
    message = f"The model takes {taken}; '{name}' has {count}."
    raise ProblemError(problems.bad_request(message, param=name))


def _json_fault(body: bytes, error: orjson.JSONDecodeError) -> ProblemError:
    if not body.strip():
        return _refused(FieldFault(("body",), "Field required", "missing"))
    message = f"The body is not valid JSON at line {error.lineno} column {error.colno}"
    return _refused(FieldFault(("body", error.pos), message, "json_invalid"))


def _faults_of(error: ValidationError) -> list[FieldFault]:
    found = error.errors(include_url=False, include_context=False, include_input=False)
    return [
        FieldFault(("body", *entry["loc"]), entry["msg"], entry["type"])
        for entry in found[:_LISTED_FAULTS]
    ]


def _refused(*faults: FieldFault) -> ProblemError:
    return ProblemError(problems.invalid_fields(faults))
