"""The published contract of answers that are kept, and of `/jobs/`."""

from typing import Any, Final

from gateway.api.exchange import REQUEST_ID_PATTERN
from gateway.api.wishes import IDEMPOTENCY_KEY, PREFER, RESPOND_ASYNC, WEBHOOK
from gateway.promises.model import IDEMPOTENCY_KEY_PATTERN

Document = dict[str, Any]

_REQUEST_ID: Final[Document] = {"type": "string", "pattern": f"^{REQUEST_ID_PATTERN}$"}
_INTEGER: Final[Document] = {"type": "integer", "minimum": 0}
_WEI: Final[Document] = {"type": "string", "pattern": "^[0-9]+$"}
_ENDS: Final = ("done", "failed", "cancelled")

REPLAYED_HEADER: Final[Document] = {
    "Idempotency-Replayed": {
        "description": "That this is the answer to an earlier request with this key.",
        "schema": {"const": "true"},
    }
}


def wish_parameters() -> list[Document]:
    """Of every endpoint that makes images."""
    return [
        _header(
            IDEMPOTENCY_KEY,
            "Names the request, so that a repeat gets its answer and is neither made nor charged "
            "again. Goes not with a stream.",
            {"type": "string", "pattern": f"^{IDEMPOTENCY_KEY_PATTERN}$"},
        ),
        _header(
            PREFER,
            f"{RESPOND_ASYNC}: 202 at once, and the answer later, at /jobs/. Goes not with a stream. "
            f"A header {WEBHOOK} beside it names an https:// URL that is told of the end.",
            {"type": "string", "examples": [RESPOND_ASYNC]},
        ),
    ]


def accepted(request_id_header: Document) -> Document:
    """The answer to a request whose answer comes later."""
    url = {"type": "string", "format": "uri"}
    schema = {
        "title": "Accepted",
        "type": "object",
        "required": ["id", "state", "status_url", "events_url"],
        "properties": {
            "id": _REQUEST_ID,
            "state": {"enum": ["waiting", *_ENDS]},
            "status_url": url,
            "events_url": url,
        },
    }
    return {
        "description": f"It is on its way, as {PREFER}: {RESPOND_ASYNC} asked.",
        "headers": {
            **request_id_header,
            **REPLAYED_HEADER,
            "Location": {"required": True, "schema": url},
            "Preference-Applied": {"required": True, "schema": {"const": RESPOND_ASYNC}},
        },
        "content": {"application/json": {"schema": schema}},
    }


def job_schema() -> Document:
    """Body of `GET /jobs/{id}` and of webhooks."""
    progress = {
        "title": "Progress",
        "type": "object",
        "required": ["id", "state", "done_steps", "total_steps", "position"],
        "properties": {
            "id": _REQUEST_ID,
            "state": {"enum": ["waiting", "sent", "running"]},
            "done_steps": {**_INTEGER, "description": "Denoising steps done, over all images."},
            "total_steps": _INTEGER,
            "position": {**_INTEGER, "description": "Place in the queue; 0 when in none."},
        },
    }
    error = {
        "type": "object",
        "required": ["message", "type", "code", "param"],
        "properties": {"message": {"type": "string"}, "code": {"type": "string"}},
    }
    ending = {
        "title": "Ending",
        "type": "object",
        "required": ["id", "state", "finished_at"],
        "properties": {
            "id": _REQUEST_ID,
            "state": {"enum": list(_ENDS)},
            "finished_at": {"type": "number", "description": "Unix seconds."},
            "result": {"type": "object", "description": "What the request itself would answer."},
            "fee": {**_WEI, "description": "Wei paid for the images."},
            "warnings": {"type": "string"},
            "status": {"type": "integer", "description": "That the request itself would have."},
            "error": error,
        },
        "anyOf": [{"required": ["result", "fee"]}, {"required": ["error"]}],
    }
    return {"title": "Job", "oneOf": [progress, ending]}


def job_webhook(job: Document) -> Document:
    """What is posted to the URL of `Limner-Webhook`, again and again until it is taken."""
    return {
        "post": {
            "operationId": "jobEnded",
            "summary": "A job has ended",
            "description": "Signed as https://www.standardwebhooks.com has it, with the key's secret. "
            "It may come more than once: `webhook-id` stays the same.",
            "parameters": [
                {**_header(name, told, {"type": "string"}), "required": True}
                for name, told in (
                    ("webhook-id", "Of the message."),
                    ("webhook-timestamp", "Unix seconds of this try."),
                    ("webhook-signature", "`v1,` and the HMAC-SHA256 in base64."),
                )
            ],
            "requestBody": {"required": True, "content": {"application/json": {"schema": job}}},
            "responses": {
                "2XX": {"description": "Taken."},
                "410": {"description": "Not to be told any more."},
            },
        }
    }


def cancelled_schema() -> Document:
    return {
        "title": "Cancelled",
        "type": "object",
        "required": ["id", "state"],
        "properties": {"id": _REQUEST_ID, "state": {"const": "cancelled"}},
    }


def _header(name: str, description: str, schema: Document) -> Document:
    return {"name": name, "in": "header", "description": description, "schema": schema}
