"""OpenAI's interface in the published contract. Its bodies are those that `openai_body` takes."""

from typing import Any

from gateway.api.openai_body import IMAGE_EVENT, MOST_PARTIAL_IMAGES, PARTIAL_EVENT, WITHOUT_EFFECT
from gateway.api.output import KINDS, embedding_fields
from network.wire.limits import LARGEST_SEED, Limits
from network.wire.schema import request_schema

Document = dict[str, Any]


def images_request_schema(limits: Limits) -> Document:
    """Body of `POST /v1/images/generations`; every field but the prompt may be null."""
    own = request_schema(limits)
    fields: Document = own["properties"]
    shared = ("guidance_scale", "negative_prompt", "safety_check", "seed", "deterministic")
    optional: Document = {
        "model": fields["model_id"],
        "n": fields["num_images_per_prompt"],
        "num_inference_steps": fields["num_inference_steps"],
        **{name: fields[name] for name in shared},
        "size": {
            "type": "string",
            "description": "Width and height in pixels, or auto: the largest square up to 1024.",
            "default": "auto",
            "pattern": _size_pattern(limits),
        },
        "response_format": _choice("url", "b64_json"),
        "output_format": _choice(*KINDS),
        "output_compression": {
            "type": "integer",
            "description": "The quality of jpeg and webp; 100 is the best.",
            "minimum": 0,
            "maximum": 100,
            "default": 100,
        },
        **embedding_fields(),
        "background": _choice("auto", "opaque"),
        "stream": {
            "type": "boolean",
            "description": "Answer with server-sent events, one for each image.",
            "default": False,
        },
        "partial_images": {
            "type": "integer",
            "description": "Previews to send before each image of a stream, where there are some.",
            "minimum": 0,
            "maximum": MOST_PARTIAL_IMAGES,
        },
        "loras": {"anyOf": [fields["loras"], _loras_object(limits)]},
        **{name: {"description": "Has no effect."} for name in WITHOUT_EFFECT},
    }
    schema: Document = {
        "title": "ImagesRequest",
        "type": "object",
        "required": ["prompt"],
        "properties": {
            "prompt": fields["prompt"],
            **{name: {"anyOf": [field, {"type": "null"}]} for name, field in optional.items()},
        },
    }
    if rules := _seed_rules(limits):
        schema["allOf"] = rules
    return schema


def images_response_schema() -> Document:
    """Body of a 200 that is no stream."""
    image = {
        "type": "object",
        "required": ["seed", "nsfw"],
        "properties": {
            "url": {"type": "string"},
            "b64_json": {"type": "string"},
            "seed": {"type": "integer", "minimum": 0, "maximum": LARGEST_SEED},
            "nsfw": {"type": "boolean"},
        },
    }
    return {
        "title": "ImagesResponse",
        "type": "object",
        "required": ["created", "data"],
        "properties": {
            "created": {"type": "integer"},
            "data": {"type": "array", "items": image},
            "output_format": {"enum": list(KINDS)},
            "size": {"type": "string"},
        },
    }


def image_event_schema() -> Document:
    """One event of a stream; its data is JSON with the fields of an image, inline."""
    return {
        "type": "object",
        "required": ["event", "data"],
        "properties": {
            "event": {"enum": [IMAGE_EVENT, PARTIAL_EVENT, "error"]},
            "data": {"type": "string"},
        },
    }


def models_schema() -> Document:
    """Body of `GET /v1/models`."""
    text = {"type": "string"}
    model = {
        "type": "object",
        "required": ["id", "object", "created", "owned_by"],
        "properties": {
            "id": text,
            "object": {"const": "model"},
            "created": {"type": "integer"},
            "owned_by": text,
            "limner": _limner_schema(),
        },
    }
    return {
        "title": "Models",
        "type": "object",
        "required": ["object", "data"],
        "properties": {"object": {"const": "list"}, "data": {"type": "array", "items": model}},
    }


def _limner_schema() -> Document:
    """What is not OpenAI's: how a request for the model would fare now."""
    flag, number = {"type": "boolean"}, {"type": "integer", "minimum": 0}
    return {
        "type": "object",
        "properties": {
            "available": flag,
            "reason": {"type": "string"},
            "warm": flag,
            "orchestrators": number,
            "free": number,
            "wei_per_pixel": {"type": ["string", "null"], "pattern": "^[0-9]+(/[0-9]+)?$"},
            "overhead_seconds": {"type": "number", "minimum": 0},
            "seconds_per_pixel_step": {"type": ["number", "null"], "minimum": 0},
            "default": flag,
            "loras": {"type": "array", "items": {"type": "string"}},
            "limits": {"type": "object"},
        },
    }


def _choice(*words: str) -> Document:
    return {"enum": list(words), "default": words[0]}


def _size_pattern(limits: Limits) -> str:
    width, height = (_sides(limits, most) for most in (limits.max_width, limits.max_height))
    return f"^(auto|({width})x({height}))$"


def _sides(limits: Limits, largest: int) -> str:
    least, most = limits.sides(largest)
    return "|".join(map(str, range(least, most + 1, limits.size_multiple)))


def _loras_object(limits: Limits) -> Document:
    return {
        "type": "object",
        "maxProperties": limits.max_loras,
        "propertyNames": {"pattern": "^[A-Za-z0-9._/-]{1,128}$"},
        "additionalProperties": {"type": "number", "minimum": 0, "maximum": 99},
    }


def _seed_rules(limits: Limits) -> list[Document]:
    """The last of n images has a 32-bit seed too: n images leave n - 1 seeds less."""
    return [
        {
            "if": {
                "required": ["n"],
                "properties": {"n": {"type": "integer", "minimum": images}},
            },
            "then": {
                "properties": {
                    "seed": {"anyOf": [{"maximum": LARGEST_SEED + 1 - images}, {"type": "null"}]}
                }
            },
        }
        for images in range(2, limits.max_images + 1)
    ]
