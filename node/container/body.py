"""A request's body, read as Livepeer's ai-runner reads it.

Its types are lax (pydantic's): "576" and 576.0 are the integer 576, "true" and 1 are true. What is
missing gets its default, null is refused, and keys nobody knows are ignored.
"""

from collections.abc import Mapping
from typing import Annotated, Any, Final

import orjson
from aiohttp import web
from pydantic import AllowInfNan, BaseModel, ConfigDict, ValidationError

from network.errors import JSON_TYPE, FieldFault, ProblemError
from network.wire import problems
from network.wire.messages import TextToImageRequest

_LISTED_FAULTS: Final = 16


class _Lax(BaseModel):
    # The fields of TextToImageRequest, which has their defaults; a test holds the two together.
    model_config = ConfigDict(extra="ignore", hide_input_in_errors=True, protected_namespaces=())

    prompt: str
    model_id: str = ""
    loras: str = ""
    height: int = 0
    width: int = 0
    guidance_scale: Annotated[float, AllowInfNan(allow_inf_nan=False)] = 0.0
    negative_prompt: str = ""
    safety_check: bool = True
    seed: int = 0
    num_inference_steps: int = 0
    num_images_per_prompt: int = 0
    deterministic: bool = False


def check_type(request: web.Request) -> None:
    """Raise ProblemError 422 for a body that does not say it is JSON.

    A page in a browser on this machine can send other types here without being asked.
    """
    if request.content_type != JSON_TYPE:
        message = f"The body has to be JSON, with Content-Type: {JSON_TYPE}"
        raise _refused(FieldFault(("body",), message, "model_attributes_type"))


def parse(body: bytes) -> TextToImageRequest:
    """Return the request in `body`, not yet bounded. Raises ProblemError 422."""
    try:
        value = orjson.loads(body)
    except orjson.JSONDecodeError as error:
        if not body.strip():
            raise _refused(FieldFault(("body",), "Field required", "missing")) from None
        message = f"JSON decode error at line {error.lineno} column {error.colno}"
        raise _refused(FieldFault(("body", error.pos), message, "json_invalid")) from None
    if not isinstance(value, dict):
        message = "Input should be a valid dictionary"
        raise _refused(FieldFault(("body",), message, "dict_type"))
    return _typed(value)


def _typed(value: Mapping[str, Any]) -> TextToImageRequest:
    try:
        given = _Lax.model_validate(value).model_dump(exclude_unset=True)
    except ValidationError as error:
        found = error.errors(include_url=False, include_context=False, include_input=False)
        faults = (
            FieldFault(("body", *entry["loc"]), entry["msg"], entry["type"])
            for entry in found[:_LISTED_FAULTS]
        )
        raise _refused(*faults) from None
    return TextToImageRequest(**given)


def _refused(*faults: FieldFault) -> ProblemError:
    return ProblemError(problems.invalid_fields(faults))
