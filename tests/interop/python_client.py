"""Makes one call with the official client and prints what a program using it would see, as one JSON line.

stdin: {"url": gateway, "key": bearer, "request": fields as the client names them}
"""

import json
import sys
from typing import Any

from livepeer_ai import Livepeer
from livepeer_ai.models import errors


def call(url: str, key: str, request: dict[str, Any]) -> dict[str, Any]:
    with Livepeer(http_bearer=key, server_url=url) as livepeer:
        try:
            result = livepeer.generate.text_to_image(request=request)
        except errors.HTTPValidationError as error:
            faults = [fault.model_dump() for fault in error.data.detail]
            return {"error": type(error).__name__, "status": 422, "detail": faults}
        except errors.HTTPError as error:
            detail = error.data.detail.model_dump()
            return {"error": type(error).__name__, "status": None, "detail": detail}
        except errors.SDKError as error:
            return {
                "error": type(error).__name__,
                "status": error.status_code,
                "body": error.body,
            }
    images = [image.model_dump() for image in result.image_response.images]
    return {"status": 200, "images": images}


if __name__ == "__main__":
    print(json.dumps(call(**json.load(sys.stdin))))  # noqa: T201
