"""Makes calls with the official client and prints what a program using it would see, as one JSON line.

stdin: {"url": gateway, "key": bearer, "call": "generate" | "models" | "stream", "request": keyword arguments}
"""

import base64
import json
import sys
from typing import Any

import openai


def run(url: str, key: str, call: str, request: dict[str, Any]) -> dict[str, Any]:
    with openai.OpenAI(base_url=f"{url}/v1", api_key=key, max_retries=0) as client:
        try:
            return {"generate": generated, "models": models, "stream": streamed}[call](
                client, request
            )
        except openai.APIStatusError as error:
            return {
                "error": type(error).__name__,
                "status": error.status_code,
                "code": error.code,
                "param": error.param,
                "message": error.message,
            }


def generated(client: openai.OpenAI, request: dict[str, Any]) -> dict[str, Any]:
    images = client.images.generate(**request).data or []
    return {"images": [{"url": image.url, "b64_json": image.b64_json} for image in images]}


def models(client: openai.OpenAI, request: dict[str, Any]) -> dict[str, Any]:
    listed = [model.id for model in client.models.list(**request)]
    return {"models": listed, "first": client.models.retrieve(listed[0]).id}


def streamed(client: openai.OpenAI, request: dict[str, Any]) -> dict[str, Any]:
    events = [
        {"type": event.type, "bytes": len(base64.b64decode(event.b64_json))}
        for event in client.images.generate(**request, stream=True)
    ]
    return {"events": events}


if __name__ == "__main__":
    print(json.dumps(run(**json.load(sys.stdin))))  # noqa: T201
