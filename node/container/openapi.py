"""A runner's contract: OpenAPI 3.1, with the ai-runner's operations and names, and our bounds.

Shapes and names are those that clients generated from the ai-runner's document know; whatever is
more than there (`error`, `safety`, `deterministic`) is ours and ignored by them.
"""

from typing import Any, Final

from network.wire.limits import Limits
from network.wire.schema import problem_schema, request_schema, response_schema

Document = dict[str, Any]

_TEXT: Final[Document] = {"type": "string"}
_WHOLE: Final[Document] = {"type": "integer"}
_BYTES: Final[Document] = {"type": "integer", "minimum": 0}
_ABOUT: Final[Document] = {"pipeline": _TEXT, "model_id": _TEXT}

_REASONS: Final = {
    "400": "The request is the client's mistake: out of bounds, no prompt, a model or LoRA that "
    "is not here, or refused by the safety policy.",
    "401": "The bearer token is missing or wrong.",
    "422": "The body is not JSON, lacks the prompt, or a field has the wrong type.",
    "500": 'There is no room ("insufficient capacity: ..."; another runner may have some), or the '
    "runner failed.",
}


def document(limits: Limits, version: str, *, has_token: bool) -> Document:
    """The whole document; `limits` are those of the default model."""
    security: list[Document] = [{"HTTPBearer": []}] if has_token else []
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "Limner runner",
            "version": version,
            "description": "Livepeer's ai-runner for text-to-image. Numbers and booleans may come "
            'as strings ("576"). Bounds are those of the default model.',
            "license": {"name": "MIT", "identifier": "MIT"},
        },
        "servers": [{"url": "/"}],
        "tags": [{"name": "generate"}, {"name": "health"}, {"name": "hardware"}],
        "paths": {
            "/text-to-image": {"post": _text_to_image(security)},
            "/health": {"get": _get("health", "health", "HealthCheck", "Its state")},
            "/hardware/info": {
                "get": _get("hardware_info", "hardware", "HardwareInformation", "Its GPUs")
            },
            "/hardware/stats": {
                "get": _get("hardware_stats", "hardware", "HardwareStats", "How busy they are")
            },
            "/version": {"get": _get("version", "health", "VersionInfo", "Its version")},
            "/metrics": {"get": _metrics(security)},
            "/openapi.json": {"get": _get("openapi", "health", None, "This document")},
        },
        "components": {
            "schemas": _schemas(limits),
            "securitySchemes": {"HTTPBearer": {"type": "http", "scheme": "bearer"}},
        },
    }


def _text_to_image(security: list[Document]) -> Document:
    headers = {
        "Limner-Job-Id": ("The job's id, as the runner's log has it.", True),
        "Limner-Steps": ("Denoising steps that were taken.", True),
        "Limner-Guidance": ("Guidance scale that was used.", True),
        "Limner-Warnings": ("What of the request had no effect.", False),
    }
    success = {
        "description": "The images, in the order of their seeds.",
        "headers": {
            name: {"description": text, "required": required, "schema": _TEXT}
            for name, (text, required) in headers.items()
        },
        "content": _json("ImageResponse"),
    }
    return {
        "operationId": "genTextToImage",
        "summary": "Make images from a text",
        "tags": ["generate"],
        "security": security,
        "requestBody": {"required": True, "content": _json("TextToImageParams")},
        "responses": {
            "200": success,
            "400": _failure("400", "HTTPError"),
            "401": {
                **_failure("401", "HTTPError"),
                "headers": {"WWW-Authenticate": {"required": True, "schema": {"const": "Bearer"}}},
            },
            "422": _failure("422", "HTTPValidationError"),
            "500": _failure("500", "HTTPError"),
        },
    }


def _metrics(security: list[Document]) -> Document:
    return {
        "operationId": "metrics",
        "summary": "Counters in Prometheus' format",
        "tags": ["health"],
        "security": security,
        "responses": {
            "200": {"description": "The metrics.", "content": {"text/plain": {"schema": _TEXT}}},
            "401": _failure("401", "HTTPError"),
        },
    }


def _get(operation: str, tag: str, schema: str | None, summary: str) -> Document:
    content = {"application/json": {"schema": {"type": "object"}}}
    return {
        "operationId": operation,
        "summary": summary,
        "tags": [tag],
        "security": [],
        "responses": {
            "200": {
                "description": "The answer.",
                "content": content if schema is None else _json(schema),
            }
        },
    }


def _schemas(limits: Limits) -> Document:
    fault = problem_schema()["properties"]["detail"]["anyOf"][1]["items"]
    error = problem_schema()["properties"]["error"]
    message = {"title": "APIError", "type": "object", "required": ["msg"], "properties": {}}
    message["properties"] = {"msg": _TEXT}
    gpu = {"id": _TEXT, "name": _TEXT, "memory_total": _BYTES, "memory_free": _BYTES}
    percent = {"type": "integer", "minimum": 0, "maximum": 100}
    busy = {"utilization_compute": percent, "utilization_memory": percent}
    return {
        "TextToImageParams": request_schema(limits),
        "ImageResponse": response_schema(),
        "APIError": message,
        "HTTPError": _object({"detail": _reference("APIError"), "error": error}),
        "ValidationError": {"title": "ValidationError", **fault},
        "HTTPValidationError": _object(
            {"detail": {"type": "array", "items": _reference("ValidationError")}, "error": error}
        ),
        "HealthCheck": {
            "type": "object",
            "required": ["status"],
            "properties": {"status": {"enum": ["LOADING", "OK", "ERROR", "IDLE"]}},
        },
        "HardwareInformation": _object(
            {**_ABOUT, "gpu_info": _by_index({**gpu, "major": _WHOLE, "minor": _WHOLE})}
        ),
        "HardwareStats": _object({**_ABOUT, "gpu_stats": _by_index({**gpu, **busy})}),
        "VersionInfo": _object({**_ABOUT, "version": _TEXT}),
    }


def _object(properties: Document) -> Document:
    return {"type": "object", "required": list(properties), "properties": properties}


def _by_index(properties: Document) -> Document:
    """One object a GPU, under its number as a string."""
    return {"type": "object", "additionalProperties": _object(properties)}


def _reference(schema: str) -> Document:
    return {"$ref": f"#/components/schemas/{schema}"}


def _json(schema: str) -> Document:
    return {"application/json": {"schema": _reference(schema)}}


def _failure(status: str, schema: str) -> Document:
    return {"description": _REASONS[status], "content": _json(schema)}
