"""The published contract: OpenAPI 3.1, with the bounds that are enforced and every status that occurs."""

from typing import Any

from gateway.api import cache_status
from gateway.api.exchange import REQUEST_ID_PATTERN
from gateway.api.openai_contract import (
    image_event_schema,
    images_request_schema,
    images_response_schema,
    models_schema,
)
from gateway.api.openapi_jobs import (
    REPLAYED_HEADER,
    accepted,
    cancelled_schema,
    job_schema,
    job_webhook,
    wish_parameters,
)
from gateway.api.output import output_fields
from gateway.api.own_key import PATH as KEY_PATH
from gateway.api.own_key import own_key_schema
from gateway.storage.names import MEDIA
from network.wire.limits import Limits
from network.wire.schema import problem_schema, request_schema, response_schema

Document = dict[str, Any]

_PROBLEM: Document = {"$ref": "#/components/schemas/Problem"}
_INTEGER: Document = {"type": "integer", "minimum": 0}
_REQUEST_ID: Document = {"type": "string", "pattern": f"^{REQUEST_ID_PATTERN}$"}

_REASONS = {
    "400": "The request asks for something that cannot be had, or is not HTTP.",
    "401": "The bearer key is missing, unknown, revoked or expired.",
    "402": "The budget of the key, of its team, or of those without a key is spent.",
    "403": "The key may not be used, or not for this.",
    "404": "There is no such thing, or this key may not know of it.",
    "405": "The resource does not have this method.",
    "408": "The body took too long to arrive.",
    "409": "It was cancelled, is at its end already, or its answer is not kept any more.",
    "413": "The body is larger than the gateway reads.",
    "415": "The body is not JSON.",
    "416": "The image has none of the bytes that were asked for.",
    "417": "The only expectation understood is 100-continue.",
    "422": "A field is missing, of the wrong type or out of bounds, or an idempotency key was used for "
    "another request.",
    "429": "This key or address has too many requests under way, or in this minute.",
    "431": "A line of the request's head is too long.",
    "500": "The gateway's own fault.",
    "503": "No capacity, no orchestrator within the price cap, all of them failed, or too late.",
    "504": "No answer is remembered, and the request wants no other.",
}
_EXTRA_HEADERS: dict[str, Document] = {
    "401": {"WWW-Authenticate": {"required": True, "schema": {"const": "Bearer"}}},
    "402": {"Retry-After": {"required": True, "schema": {**_INTEGER, "minimum": 1}}},
    "405": {"Allow": {"required": True, "schema": {"type": "string"}}},
    "416": {"Content-Range": {"required": True, "schema": {"type": "string"}}},
    "429": {"Retry-After": {"required": True, "schema": {**_INTEGER, "minimum": 1}}},
    "503": {"Retry-After": {"required": True, "schema": {**_INTEGER, "minimum": 1}}},
}
_REQUEST_ID_PARAMETER: Document = {
    "name": "X-Request-Id",
    "in": "header",
    "description": "Names the request for `/jobs/{request_id}`; drawn if absent.",
    "schema": _REQUEST_ID,
}
#: What can be wrong with who asks.
_KEY = ("401", "402", "403", "429")
#: What can happen to a request for images.
_REFUSALS = ("401", "402", "403", "408", "409", "413", "415", "417", "422", "429")
#: What can happen to any request before or beside its route.
_ALWAYS = ("400", "404", "405", "431", "500", "503")


def document(limits: Limits, version: str, public_url: str, *, keyless: bool = False) -> Document:
    """The whole document; `limits` are those of the default model.

    `keyless`: whether those may ask, too, who have no key.
    """
    found = _document(limits, version, public_url)
    for path in found["paths"].values() if keyless else ():
        for operation in path.values():
            if operation["security"]:
                operation["security"] = [*operation["security"], {}]
    return found


def _document(limits: Limits, version: str, public_url: str) -> Document:
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "Limner gateway",
            "version": version,
            "description": "Text to image on Livepeer's network. Bounds are those of the default model.",
            "license": {"name": "MIT", "identifier": "MIT"},
        },
        "servers": [{"url": public_url or "/"}],
        "tags": [{"name": "generate"}, {"name": "service"}],
        "paths": {
            "/text-to-image": {"post": _text_to_image()},
            "/quote": {"post": _quote()},
            "/v1/images/generations": {"post": _openai_images()},
            "/v1/models": {"get": _openai_models()},
            KEY_PATH: {"get": _own_key()},
            "/jobs/{request_id}": {"get": _job(), "delete": _end_job()},
            "/jobs/{request_id}/events": {"get": _job_events()},
            "/stream/{request}/{name}": {"get": _image()},
            "/health": {"get": _health()},
            "/openapi.json": {"get": _openapi()},
        },
        "webhooks": {"jobEnded": job_webhook({"$ref": "#/components/schemas/Job"})},
        "components": {
            "schemas": {
                "TextToImageParams": _with_output(request_schema(limits)),
                "ImageResponse": response_schema(),
                "ImagesRequest": images_request_schema(limits),
                "ImagesResponse": images_response_schema(),
                "Models": models_schema(),
                "Job": job_schema(),
                "OwnKey": own_key_schema(),
                "Quote": _quote_schema(),
                "Problem": problem_schema(),
            },
            "securitySchemes": {"HTTPBearer": {"type": "http", "scheme": "bearer"}},
        },
    }


def _with_output(schema: Document) -> Document:
    return {**schema, "properties": {**schema["properties"], **output_fields()}}


def _text_to_image() -> Document:
    success = {
        "description": "The images, in the order of their seeds.",
        "headers": _delivery_headers(),
        "content": _json({"$ref": "#/components/schemas/ImageResponse"}),
    }
    return {
        "operationId": "genTextToImage",
        "summary": "Make images from a text",
        "tags": ["generate"],
        "security": [{"HTTPBearer": []}],
        "parameters": [_REQUEST_ID_PARAMETER, *wish_parameters(), cache_status.PARAMETER],
        "requestBody": {
            "required": True,
            "content": _json({"$ref": "#/components/schemas/TextToImageParams"}),
        },
        "responses": {
            "200": success,
            "202": accepted(_request_id_header()),
            **_problems(*_REFUSALS, "504"),
        },
    }


def _quote() -> Document:
    success = {
        "description": "What it would cost, and how long it would take.",
        "headers": _request_id_header(),
        "content": _json({"$ref": "#/components/schemas/Quote"}),
    }
    return {
        "operationId": "quoteTextToImage",
        "summary": "What a request would cost, without making anything",
        "description": "The body is that of `/text-to-image`, and so are the refusals.",
        "tags": ["generate"],
        "security": [{"HTTPBearer": []}],
        "requestBody": {
            "required": True,
            "content": _json({"$ref": "#/components/schemas/TextToImageParams"}),
        },
        "responses": {"200": success, **_problems(*_REFUSALS, "422")},
    }


def _openai_images() -> Document:
    success = {
        "description": "The images; server-sent events where `stream` is true.",
        "headers": {
            # A stream that begins with partial images is sent before all of this is known.
            name: {**header, "required": name == "X-Request-Id"}
            for name, header in _delivery_headers().items()
        },
        "content": {
            **_json({"$ref": "#/components/schemas/ImagesResponse"}),
            "text/event-stream": {"schema": image_event_schema()},
        },
    }
    return {
        "operationId": "createImage",
        "summary": "Make images from a text, as OpenAI's clients ask for them",
        "tags": ["generate"],
        "security": [{"HTTPBearer": []}],
        "parameters": [_REQUEST_ID_PARAMETER, *wish_parameters(), cache_status.PARAMETER],
        "requestBody": {
            "required": True,
            "content": _json({"$ref": "#/components/schemas/ImagesRequest"}),
        },
        "responses": {
            "200": success,
            "202": accepted(_request_id_header()),
            **_problems(*_REFUSALS, "504"),
        },
    }


def _openai_models() -> Document:
    success = {
        "description": "The models that the key may use and somebody offers.",
        "headers": _request_id_header(),
        "content": _json({"$ref": "#/components/schemas/Models"}),
    }
    return {
        "operationId": "listModels",
        "summary": "What can be asked for",
        "tags": ["generate"],
        "security": [{"HTTPBearer": []}],
        "responses": {"200": success, **_problems(*_KEY)},
    }


def _own_key() -> Document:
    success = {
        "description": "What the key that asks may do, and what it spent.",
        "headers": _request_id_header(),
        "content": _json({"$ref": "#/components/schemas/OwnKey"}),
    }
    return {
        "operationId": "getKey",
        "summary": "The key that asks",
        "tags": ["service"],
        "security": [{"HTTPBearer": []}],
        "responses": {"200": success, **_problems(*_KEY)},
    }


def _delivery_headers() -> Document:
    return {
        **_request_id_header(),
        **REPLAYED_HEADER,
        **cache_status.HEADER,
        "X-Gateway-Overhead-Ms": {
            "description": "The gateway's own share of the time.",
            "required": True,
            "schema": {"type": "number", "minimum": 0},
        },
        "X-Limner-Orchestrator": {
            "description": "Who made the images, where the operator reveals it.",
            "schema": {"type": "string"},
        },
        "Limner-Job-Id": {
            "description": "The gateway's own id of the request, as its journal has it.",
            "required": True,
            "schema": _REQUEST_ID,
        },
        "Limner-Warnings": {
            "description": "What of the request had no effect, such as the part of a prompt "
            "that is longer than the model reads. Absent where there is nothing to say.",
            "schema": {"type": "string", "maxLength": 1000},
        },
        "Limner-Fee": {
            "description": "Wei paid for the images.",
            "required": True,
            "schema": {"type": "string", "pattern": "^[0-9]+$"},
        },
    }


def _job() -> Document:
    return {
        "operationId": "getJob",
        "summary": "How far one's own request is, or how it ended if its answer is kept",
        "tags": ["generate"],
        "security": [{"HTTPBearer": []}],
        "parameters": [_path_parameter("request_id", REQUEST_ID_PATTERN)],
        "responses": {
            "200": {
                "description": "Where it stands.",
                "headers": _request_id_header(),
                "content": _json({"$ref": "#/components/schemas/Job"}),
            },
            **_problems(*_KEY),
        },
    }


def _end_job() -> Document:
    return {
        "operationId": "cancelJob",
        "summary": "End one's own running request, at no charge",
        "tags": ["generate"],
        "security": [{"HTTPBearer": []}],
        "parameters": [_path_parameter("request_id", REQUEST_ID_PATTERN)],
        "responses": {
            "200": {
                "description": "It is cancelled.",
                "headers": _request_id_header(),
                "content": _json(cancelled_schema()),
            },
            **_problems(*_KEY, "409"),
        },
    }


def _job_events() -> Document:
    names = ["queued", "progress", "preview", "over"]
    event = {
        "type": "object",
        "required": ["event", "data"],
        "properties": {"event": {"enum": names}, "data": {"type": "string"}},
    }
    return {
        "operationId": "watchJob",
        "summary": "What happens to one's own running request, as server-sent events",
        "tags": ["generate"],
        "security": [{"HTTPBearer": []}],
        "parameters": [_path_parameter("request_id", REQUEST_ID_PATTERN)],
        "responses": {
            "200": {
                "description": "Events until the request is answered.",
                "headers": _request_id_header(),
                "content": {"text/event-stream": {"schema": event}},
            },
            **_problems(*_KEY),
        },
    }


def _image() -> Document:
    image: Document = {
        "description": "The image.",
        "headers": {
            **_request_id_header(),
            "Cache-Control": {"required": True, "schema": {"type": "string"}},
            "ETag": {"required": True, "schema": {"type": "string"}},
        },
        "content": {media: {} for media in MEDIA.values()},
    }
    part = "[A-Za-z0-9_-]{1,64}"
    file = rf"{part}\.({'|'.join(MEDIA)})"
    return {
        "operationId": "getImage",
        "summary": "A delivered image, for as long as the gateway keeps it",
        "description": "The name is unguessable and stands for the permission.",
        "tags": ["generate"],
        "security": [],
        "parameters": [_path_parameter("request", part), _path_parameter("name", file)],
        "responses": {
            "200": image,
            "304": {"description": "The client has it already.", "headers": _request_id_header()},
            "206": {
                **image,
                "description": "The part of the image that was asked for.",
                "headers": {
                    **image["headers"],
                    "Content-Range": {"required": True, "schema": {"type": "string"}},
                },
            },
            **_problems("416"),
        },
    }


def _health() -> Document:
    body = {
        "type": "object",
        "required": ["status", "version"],
        "properties": {"status": {"const": "OK"}, "version": {"type": "string"}},
    }
    return _public("getHealth", "Whether the gateway lives", body)


def _openapi() -> Document:
    return _public("getOpenapi", "This document", {"type": "object"})


def _public(operation: str, summary: str, body: Document) -> Document:
    return {
        "operationId": operation,
        "summary": summary,
        "tags": ["service"],
        "security": [],
        "responses": {
            "200": {
                "description": "The answer.",
                "headers": _request_id_header(),
                "content": _json(body),
            },
            **_problems(),
        },
    }


def _quote_schema() -> Document:
    fields = {
        "model_id": {"type": "string"},
        "fee_wei": {"type": "string", "pattern": "^[0-9]+$", "description": "Of all images."},
        "price_wei_per_pixel": {
            "type": "string",
            "description": "Exact: a decimal, or as in `7/3`.",
        },
        "expected_seconds": {"type": "number", "minimum": 0},
        "orchestrators": {**_INTEGER, "description": "How many could take it now."},
        "warm": {"type": "boolean", "description": "Whether the model is in memory there."},
        "waiting": {**_INTEGER, "description": "Requests that wait for a place."},
    }
    cache = {
        "enum": [*cache_status.STATUSES],
        "description": "Where the gateway gives answers again: whether this would be one.",
    }
    properties = {**fields, "cache": cache}
    return {"title": "Quote", "type": "object", "required": [*fields], "properties": properties}


def _problems(*statuses: str) -> Document:
    return {
        status: {
            "description": _REASONS[status],
            "headers": {**_request_id_header(), **_EXTRA_HEADERS.get(status, {})},
            "content": _json(_PROBLEM),
        }
        for status in sorted({*_ALWAYS, *statuses})
    }


def _request_id_header() -> Document:
    return {
        "X-Request-Id": {"required": True, "schema": _REQUEST_ID},
        "traceparent": {
            "description": "The request's span: the trace is the client's, if it sent this header.",
            "schema": {"type": "string", "pattern": "^00-[0-9a-f]{32}-[0-9a-f]{16}-0[01]$"},
        },
        "Server-Timing": {
            "description": "`gateway`: milliseconds of its own; `others`: the client's and orchestrators'.",
            "schema": {"type": "string"},
        },
    }


def _path_parameter(name: str, pattern: str) -> Document:
    schema = {"type": "string", "pattern": f"^{pattern}$"}
    return {"name": name, "in": "path", "required": True, "schema": schema}


def _json(schema: Document) -> Document:
    return {"application/json": {"schema": schema}}
