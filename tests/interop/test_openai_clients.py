"""openai (Python and JavaScript), unmodified, against a real gateway and node.

Each call runs in a process of its own, as a user's program would.
"""

import base64
import io
import json
import shutil
import subprocess
import sys
import urllib.request
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from scripts.local_network.network import LocalNetwork

pytestmark = [pytest.mark.interop, pytest.mark.slow]

HERE = Path(__file__).parent
JAVASCRIPT = HERE / "javascript"
SMALL = {"prompt": "a red heart", "size": "128x128"}

Caller = Callable[..., dict[str, Any]]


@pytest.fixture(params=["python", "javascript"])
def caller(request: pytest.FixtureRequest, one_node: LocalNetwork) -> Caller:
    gateway = one_node.gateway
    if request.param == "python":
        command, folder = [sys.executable, str(HERE / "openai_client.py")], None
    else:
        if shutil.which("node") is None:
            pytest.skip("node is not installed, so the JavaScript client cannot run")
        if not (JAVASCRIPT / "node_modules" / "openai").exists():
            if shutil.which("npm") is None:
                pytest.skip("npm is not installed, so the JavaScript client cannot be fetched")
            pytest.fail("the JavaScript client is missing: scripts/test installs it by npm ci")
        command, folder = ["node", "openai_client.mjs"], JAVASCRIPT

    def call(name: str, fields: Mapping[str, Any], key: str = gateway.key) -> dict[str, Any]:
        # Python's client takes fields it does not know in `extra_body`, JavaScript's as they are.
        known = {"prompt", "model", "n", "size", "response_format", "extra_body"}
        sent: dict[str, Any] = dict(fields)
        if request.param == "python":
            extra = {field: sent.pop(field) for field in list(sent) if field not in known}
            sent |= {"extra_body": extra} if extra else {}
        said = subprocess.run(
            command,
            input=json.dumps({"url": gateway.url, "key": key, "call": name, "request": sent}),
            cwd=folder,
            capture_output=True,
            text=True,
            timeout=100,
            check=False,
        )
        assert said.returncode == 0, said.stderr
        seen: dict[str, Any] = json.loads(said.stdout)
        return seen

    return call


def picture(raw: bytes) -> Image.Image:
    image = Image.open(io.BytesIO(raw))
    image.load()
    return image


def test_an_image_comes_inline_and_by_url_and_is_the_same_for_the_same_seed(
    caller: Caller,
) -> None:
    fields = SMALL | {"seed": 7, "num_inference_steps": 2, "n": 2}
    inline = caller("generate", fields | {"response_format": "b64_json"})
    assert "images" in inline, inline
    pictures = [picture(base64.b64decode(image["b64_json"])) for image in inline["images"]]
    assert [image.size for image in pictures] == [(128, 128)] * 2
    linked = caller("generate", fields | {"response_format": "url"})
    for image, known in zip(linked["images"], pictures, strict=True):
        assert image["b64_json"] is None
        with urllib.request.urlopen(image["url"], timeout=20) as answer:  # noqa: S310 - our own
            assert picture(answer.read()).tobytes() == known.tobytes()


def test_a_stream_ends_with_the_whole_image(caller: Caller) -> None:
    seen = caller("stream", SMALL | {"num_inference_steps": 1})
    (event,) = seen["events"]
    assert event["type"] == "image_generation.completed"
    assert event["bytes"] > 100


def test_models_are_listed_and_the_first_is_found(caller: Caller) -> None:
    seen = caller("models", {})
    assert seen["models"] == ["limner/shapes"]
    assert seen["first"] == "limner/shapes"


@pytest.mark.parametrize(
    ("fields", "error", "status", "code", "param"),
    [
        (SMALL | {"prompt": ""}, "BadRequestError", 400, "invalid_request", "prompt"),
        (SMALL | {"size": "9999x9999"}, "BadRequestError", 400, "validation_error", "size"),
        (SMALL | {"n": 99}, "BadRequestError", 400, "validation_error", "n"),
        (SMALL | {"model": "no/such"}, "NotFoundError", 404, "model_not_found", "model"),
    ],
)
def test_errors_have_the_clients_own_classes(  # noqa: PLR0917
    caller: Caller, fields: dict[str, Any], error: str, status: int, code: str, param: str
) -> None:
    seen = caller("generate", fields)
    assert (seen["error"], seen["status"]) == (error, status)
    assert (seen["code"], seen["param"]) == (code, param)


def test_a_wrong_key_is_an_authentication_error(caller: Caller) -> None:
    seen = caller("generate", SMALL, key="not-a-key")
    assert (seen["error"], seen["status"], seen["code"]) == (
        "AuthenticationError",
        401,
        "invalid_api_key",
    )
