"""JSON Schemas (draft 2020-12, as OpenAPI 3.1 has them) of the public bodies.

A body is valid by `request_schema(limits)` exactly when `messages.parse_request` and
`messages.check_limits` accept it; a test holds the two together.
"""

from typing import Any

from network.wire.limits import (
    LARGEST_SEED,
    MAX_LORAS_CHARS,
    MAX_MODEL_ID_CHARS,
    Limits,
    loras_pattern,
    model_id_pattern,
    negative_prompt_pattern,
    prompt_pattern,
)
from network.wire.safety import Safety

Schema = dict[str, Any]


def request_schema(limits: Limits) -> Schema:
    """Body of `POST /text-to-image` within `limits`.

    A field whose default is out of bounds here has to be given.
    """
    numbers = _number_fields(limits)
    given = [name for name, field in numbers.items() if not _default_is_valid(field)]
    for name in given:
        del numbers[name]["default"]
    schema: Schema = {
        "title": "TextToImageParams",
        "type": "object",
        "required": ["prompt", *given],
        "properties": {**_text_fields(limits), **numbers},
    }
    if rules := _seed_rules(limits):
        schema["allOf"] = rules
    return schema


def response_schema() -> Schema:
    """Body of a 200."""
    media = {
        "title": "Media",
        "type": "object",
        "required": ["url", "seed", "nsfw", "safety"],
        "properties": {
            "url": {"type": "string", "description": "Where the PNG can be fetched."},
            "seed": {"type": "integer", "minimum": 0, "maximum": LARGEST_SEED},
            "nsfw": {
                "type": "boolean",
                "description": "Whether a safety checker objects; see safety for whether one looked.",
            },
            "safety": {"enum": [word.value for word in Safety], "description": _SAFETY},
        },
    }
    return {
        "title": "ImageResponse",
        "type": "object",
        "required": ["images"],
        "properties": {"images": {"type": "array", "items": media}},
    }


_SAFETY = (
    "passed: a checker looked and found nothing; flagged: it objects; blurred: it objects, and the "
    "image is made unrecognisable; unchecked: none looked; unknown: the orchestrator does not tell."
)


def problem_schema() -> Schema:
    """Body of every error; `detail` is a list for 422 and an object otherwise."""
    text = {"type": "string"}
    fault = {
        "type": "object",
        "required": ["loc", "msg", "type"],
        "properties": {
            "loc": {"type": "array", "items": {"type": ["string", "integer"]}},
            "msg": text,
            "type": text,
        },
    }
    detail = {
        "anyOf": [
            {"type": "object", "required": ["msg"], "properties": {"msg": text}},
            {"type": "array", "items": fault},
        ]
    }
    error = {
        "type": "object",
        "required": ["message", "type", "code", "param"],
        "properties": {
            "message": text,
            "type": text,
            "code": text,
            "param": {"type": ["string", "null"]},
        },
    }
    return {
        "title": "Problem",
        "type": "object",
        "required": ["detail", "error"],
        "properties": {"detail": detail, "error": error},
    }


def _text_fields(limits: Limits) -> Schema:
    parts = limits.prompt_parts
    return {
        "prompt": {
            "type": "string",
            "description": _PROMPT.format(parts),
            "maxLength": limits.max_prompt_chars,
            "pattern": prompt_pattern(parts),
        },
        "model_id": {
            "type": "string",
            "description": 'The model to use; "" is the default model.',
            "default": "",
            "maxLength": MAX_MODEL_ID_CHARS,
            "pattern": model_id_pattern(),
        },
        "loras": {
            "type": "string",
            "description": (
                "A JSON object in a string, adapter name to weight, with at most "
                f"{limits.max_loras} entries."
            ),
            "default": "",
            "maxLength": MAX_LORAS_CHARS,
            "pattern": loras_pattern(limits.max_loras),
        },
        "negative_prompt": {
            "type": "string",
            "description": "What to keep out of the image; needs a guidance_scale above 1.",
            "default": "",
            "maxLength": limits.max_prompt_chars,
            "pattern": negative_prompt_pattern(parts),
        },
    }


_PROMPT = (
    "What to draw. At most {} part(s) between '|', one for each of the model's text encoders."
)


def _number_fields(limits: Limits) -> Schema:
    return {
        "height": _side("Height", 576, limits, limits.max_height),
        "width": _side("Width", 1024, limits, limits.max_width),
        "guidance_scale": {
            "type": "number",
            "description": "How closely to follow the prompt.",
            "default": 7.5,
            "minimum": 0,
            "maximum": limits.max_guidance,
        },
        "safety_check": {
            "type": "boolean",
            "description": (
                "Whether to look for images that may offend. What is done about one is the "
                "orchestrator's policy: flag it, blur it, or refuse the request."
            ),
            "default": True,
        },
        "seed": {
            "type": "integer",
            "description": "Seed of the first image, drawn if absent; the next has seed + 1.",
            "minimum": 0,
            "maximum": LARGEST_SEED,
        },
        "num_inference_steps": {
            "type": "integer",
            "description": "Denoising steps.",
            "default": 50,
            "minimum": 1,
            "maximum": limits.max_steps,
        },
        "num_images_per_prompt": {
            "type": "integer",
            "description": "Images to make.",
            "default": 1,
            "minimum": 1,
            "maximum": limits.max_images,
        },
        "deterministic": {
            "type": "boolean",
            "description": (
                "Whether the same model, seed and parameters must give the same bytes whatever "
                "else the orchestrator is at. Takes longer where it is busy."
            ),
            "default": False,
        },
    }


def _side(name: str, default: int, limits: Limits, largest: int) -> Schema:
    least, most = limits.sides(largest)
    return {
        "type": "integer",
        "description": f"{name} in pixels.",
        "default": default,
        "minimum": least,
        "maximum": most,
        "multipleOf": limits.size_multiple,
    }


def _default_is_valid(field: Schema) -> bool:
    default = field.get("default")
    if default is None or field["type"] == "boolean":
        return True
    on_grid = default % field.get("multipleOf", default or 1) == 0
    return bool(on_grid and field["minimum"] <= default <= field["maximum"])


def _seed_rules(limits: Limits) -> list[Schema]:
    """The last of n images has a 32-bit seed too: n images leave n - 1 seeds less."""
    return [
        {
            "if": {
                "required": ["num_images_per_prompt"],
                "properties": {"num_images_per_prompt": {"minimum": images}},
            },
            "then": {"properties": {"seed": {"maximum": LARGEST_SEED + 1 - images}}},
        }
        for images in range(2, limits.max_images + 1)
    ]
