"""livepeer-ai (Python) and @livepeer/ai (JavaScript), unmodified, against a real gateway and node.

Each call runs in a process of its own, as a user's program would: `python_client.py`, `javascript/client.mjs`.
"""

import io
import json
import re
import shutil
import subprocess
import sys
import urllib.request
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from scripts.local_network.network import LocalNetwork

pytestmark = [pytest.mark.interop, pytest.mark.slow]

HERE = Path(__file__).parent
JAVASCRIPT = HERE / "javascript"
#: The call of the API's own documentation: every field given, each with its default.
DOCUMENTED_CALL = {
    "model_id": "",
    "loras": "",
    "prompt": "a large yellow star on a blue background",
    "height": 576,
    "width": 1024,
    "guidance_scale": 7.5,
    "negative_prompt": "",
    "safety_check": True,
    "num_inference_steps": 50,
    "num_images_per_prompt": 1,
}
SMALL_CALL = DOCUMENTED_CALL | {"width": 128, "height": 128, "num_inference_steps": 2}


@pytest.fixture(params=["python", "javascript"])
def client(request: pytest.FixtureRequest) -> str:
    name: str = request.param
    if name == "javascript":
        if shutil.which("node") is None:
            pytest.skip("node is not installed, so the JavaScript client cannot run")
        if not (JAVASCRIPT / "node_modules" / "@livepeer" / "ai").exists():
            if shutil.which("npm") is None:
                pytest.skip("npm is not installed, so the JavaScript client cannot be fetched")
            pytest.fail("the JavaScript client is missing: scripts/test installs it by npm ci")
    return name


def call(client: str, url: str, key: str, fields: Mapping[str, Any]) -> dict[str, Any]:
    """What a program using `client` sees: status and images, or the class of the error."""
    if client == "python":
        command, request = [sys.executable, str(HERE / "python_client.py")], dict(fields)
    else:
        command = ["node", "client.mjs"]
        request = {re.sub("_([a-z])", lambda m: m[1].upper(), k): v for k, v in fields.items()}
    said = subprocess.run(
        command,
        input=json.dumps({"url": url, "key": key, "request": request}),
        cwd=JAVASCRIPT if client == "javascript" else None,
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )
    assert said.returncode == 0, said.stderr
    seen: dict[str, Any] = json.loads(said.stdout)
    return seen


def downloaded(url: str) -> Image.Image:
    with urllib.request.urlopen(url, timeout=20) as answer:  # noqa: S310 - our own gateway
        assert answer.headers["Content-Type"] == "image/png"
        image = Image.open(io.BytesIO(answer.read()))
        image.load()
    return image


def test_the_documented_call_with_all_its_defaults_gives_a_picture_of_that_size(
    client: str, one_node: LocalNetwork
) -> None:
    gateway = one_node.gateway
    seen = call(client, gateway.url, gateway.key, DOCUMENTED_CALL)
    assert seen["status"] == 200, seen
    (media,) = seen["images"]
    assert media["url"].startswith(f"{gateway.url}/stream/")
    assert 0 <= media["seed"] < 2**32
    assert media["nsfw"] is False
    image = downloaded(media["url"])
    assert (image.format, image.size) == ("PNG", (1024, 576))
    assert len(image.convert("RGB").getcolors(2**24) or []) > 1, "the picture has one colour"


def test_a_call_with_nothing_but_a_prompt_is_completed_by_the_client(
    client: str, one_node: LocalNetwork
) -> None:
    gateway = one_node.gateway
    seen = call(
        client, gateway.url, gateway.key, {"prompt": "a red heart", "num_inference_steps": 1}
    )
    assert downloaded(seen["images"][0]["url"]).size == (1024, 576)


def test_several_images_come_in_the_order_of_their_seeds(
    client: str, one_node: LocalNetwork
) -> None:
    gateway = one_node.gateway
    fields = SMALL_CALL | {"num_images_per_prompt": 3, "seed": 40}
    seen = call(client, gateway.url, gateway.key, fields)
    assert [media["seed"] for media in seen["images"]] == [40, 41, 42]
    assert len({media["url"] for media in seen["images"]}) == 3


def test_an_empty_prompt_raises_the_documented_error_for_400(
    client: str, one_node: LocalNetwork
) -> None:
    gateway = one_node.gateway
    seen = call(client, gateway.url, gateway.key, SMALL_CALL | {"prompt": ""})
    assert seen["error"] == "HTTPError"
    assert seen["detail"] == {"msg": "Prompt must be provided."}


def test_a_wrong_key_raises_the_documented_error_for_401(
    client: str, one_node: LocalNetwork
) -> None:
    seen = call(client, one_node.gateway.url, "not-a-key", SMALL_CALL)
    assert seen["error"] == "HTTPError"
    assert seen["detail"] == {"msg": "Invalid bearer token."}


def test_a_size_out_of_bounds_raises_the_documented_error_for_422(
    client: str, one_node: LocalNetwork
) -> None:
    gateway = one_node.gateway
    seen = call(client, gateway.url, gateway.key, SMALL_CALL | {"width": 100_000})
    assert seen["error"] == "HTTPValidationError"
    (fault,) = seen["detail"]
    assert fault["loc"] == ["body", "width"]
    assert fault["msg"]
    assert fault["type"]


def test_a_price_above_what_the_key_may_pay_raises_the_documented_error_for_503(
    client: str, one_node: LocalNetwork
) -> None:
    gateway = one_node.gateway
    miser = gateway.create_key("miser", "--max-price", "1")
    seen = call(client, gateway.url, miser, SMALL_CALL)
    assert (seen["error"], seen["status"]) == ("SDKError", 503)
    assert json.loads(seen["body"])["error"]["code"] == "price_above_cap"
