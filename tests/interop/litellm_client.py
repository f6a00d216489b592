"""Makes calls with LiteLLM and prints what a program using it would see: one JSON line for all of them.

stdin: [{"url": gateway, "key": bearer, "call": "image" | "async_image", "request": keyword arguments}, ...]
"""

import asyncio
import json
import sys
from typing import Any

import litellm


def run(url: str, key: str, call: str, request: dict[str, Any]) -> dict[str, Any]:
    sent = {"api_base": f"{url}/v1", "api_key": key, "timeout": 60, **request}
    try:
        if call == "async_image":
            return told(asyncio.run(litellm.aimage_generation(**sent)))
        return told(litellm.image_generation(**sent))
    except Exception as error:  # noqa: BLE001 - LiteLLM's classes share no base of their own
        return {
            "error": type(error).__name__,
            "is_litellms": type(error).__module__.startswith("litellm."),
            "status": getattr(error, "status_code", None),
            "message": str(error),
        }


def told(answer: Any) -> dict[str, Any]:
    images = [{"url": image.url, "b64_json": image.b64_json} for image in answer.data or []]
    return {"images": images, "created": answer.created}


def main() -> None:
    print(json.dumps([run(**one) for one in json.load(sys.stdin)]))  # noqa: T201


if __name__ == "__main__":
    main()
