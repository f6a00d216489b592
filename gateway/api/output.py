"""How a client wants its images: as PNG, JPEG or WebP, and with or without the facts of their making. Pure."""

import json
import struct
import zlib
from dataclasses import dataclass
from typing import Annotated, Any, Final, Literal

import orjson
from pydantic import BaseModel, ConfigDict, Field, Strict, ValidationError

from gateway.storage.names import Kind
from network.errors import FieldFault, ProblemError
from network.wire import problems
from network.wire.messages import TextToImageRequest, WholeNumber

Format = Literal["png", "jpeg", "webp"]
_Bool = Annotated[bool, Strict()]
Quality = Annotated[WholeNumber, Field(ge=0, le=100)]

KINDS: Final[dict[Format, Kind]] = {"png": "png", "jpeg": "jpg", "webp": "webp"}
USUAL_QUALITY: Final = 90
#: Bytes up to a PNG's first free place: its signature and the chunk with its size.
_PNG_HEAD: Final = 33
#: What programs that look for an image's making search: text under this key, or an EXIF comment.
METADATA_KEY: Final = "limner"
#: No field is named without one of these in the body, unless its name is written in escapes.
_SIGNS: Final = (b'"output_', b'"embed_', b"\\u")


@dataclass(frozen=True, slots=True)
class Output:
    """As asked; the default changes nothing of what orchestrators send."""

    format: Format = "png"
    #: 0 to 100, for JPEG and WebP.
    quality: int = USUAL_QUALITY
    #: Write seed, model, parameters and the request's id into the file.
    embed_metadata: bool = False
    #: And the prompts.
    embed_prompt: bool = False


class _Fields(BaseModel):
    model_config = ConfigDict(frozen=True, extra="ignore", hide_input_in_errors=True)

    output_format: Format = "png"
    output_quality: Quality = USUAL_QUALITY
    embed_metadata: _Bool = False
    embed_prompt: _Bool = False


_PLAIN: Final = Output()


def parse_output(body: bytes) -> Output:
    """From a body that is known to be a JSON object. Raises ProblemError 422."""
    if not any(sign in body for sign in _SIGNS):
        return _PLAIN
    try:
        asked = _Fields.model_validate(orjson.loads(body))
    except ValidationError as error:
        found = error.errors(include_url=False, include_context=False, include_input=False)
        faults = [FieldFault(("body", *one["loc"]), one["msg"], one["type"]) for one in found]
        raise ProblemError(problems.invalid_fields(faults)) from None
    return Output(
        asked.output_format, asked.output_quality, asked.embed_metadata, asked.embed_prompt
    )


def output_fields() -> dict[str, Any]:
    """JSON Schema of what `parse_output` reads."""
    return {
        "output_format": {
            "enum": list(KINDS),
            "description": "What the image files are. PNG is what the orchestrator made.",
            "default": "png",
        },
        "output_quality": {
            "type": "integer",
            "description": "Of JPEG and WebP; 100 is the best.",
            "minimum": 0,
            "maximum": 100,
            "default": USUAL_QUALITY,
        },
        **embedding_fields(),
    }


def embedding_fields() -> dict[str, Any]:
    """JSON Schema of the fields that both endpoints name alike."""
    return {
        "embed_metadata": {
            "type": "boolean",
            "description": "Write seed, model, parameters and the request's id into each file.",
            "default": False,
        },
        "embed_prompt": {
            "type": "boolean",
            "description": "With embed_metadata: the prompts, too.",
            "default": False,
        },
    }


def metadata_of(
    output: Output, wanted: TextToImageRequest, seed: int, request_id: str
) -> str | None:
    """What is to be written into an image, as JSON in ASCII; None for nothing."""
    if not output.embed_metadata:
        return None
    fields: dict[str, object] = {
        "request_id": request_id,
        "model_id": wanted.model_id,
        "seed": seed,
        "width": wanted.width,
        "height": wanted.height,
        "num_inference_steps": wanted.num_inference_steps,
        "guidance_scale": wanted.guidance_scale,
        "loras": wanted.loras,
    }
    if output.embed_prompt:
        fields |= {"prompt": wanted.prompt, "negative_prompt": wanted.negative_prompt}
    return json.dumps(fields)


def with_text(png: bytes, text: str) -> bytes:
    """The PNG with one more text chunk (PNG specification, 11.3.3.2)."""
    data = METADATA_KEY.encode() + b"\0" + text.encode("ascii")
    chunk = b"tEXt" + data
    return b"".join(
        (
            memoryview(png)[:_PNG_HEAD],
            struct.pack(">I", len(data)),
            chunk,
            struct.pack(">I", zlib.crc32(chunk)),
            memoryview(png)[_PNG_HEAD:],
        )
    )
