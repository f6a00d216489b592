"""LiteLLM, unmodified, against a real gateway and node: an image model of ours is one of its models."""

import asyncio
import base64
import io
import json
import os
import subprocess
import urllib.request
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from scripts.local_network.network import ROOT, LocalNetwork
from tests.gateway.stub_orchestrator import StubOrchestrator, running
from tests.gateway.test_app import serving, settings_for

pytestmark = [pytest.mark.interop, pytest.mark.slow]

PYTHON = ROOT / ".venv-litellm" / "bin" / "python"
PROGRAM = Path(__file__).parent / "litellm_client.py"
MODEL = "openai/limner/shapes"
SMALL = {"model": MODEL, "prompt": "a red heart", "size": "128x128", "seed": 7}


def calls(network: LocalNetwork) -> dict[str, dict[str, Any]]:
    """What is asked of a gateway that serves, by name."""
    gateway = network.gateway

    def call(key: str = gateway.key, kind: str = "image", **fields: Any) -> dict[str, Any]:
        # It takes every model it does not know for one that has no response_format.
        extra = {"response_format": fields.pop("response_format", "b64_json")}
        request = {**SMALL, "num_inference_steps": 2, "extra_body": extra, **fields}
        return {"url": gateway.url, "key": key, "call": kind, "request": request}

    return {
        "inline": call(n=2),
        "by url": call(response_format="url", n=2),
        "async": call(kind="async_image"),
        "as jpeg": call(output_format="jpeg", output_compression=80),
        "no prompt": call(prompt=""),
        "wrong size": call(size="9999x9999"),
        "too many": call(n=99),
        "no such model": call(model="openai/no/such"),
        "wrong key": call(key="not-a-key"),
    }


def asked(calls: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """What LiteLLM made of each: all in one process, for its import takes seconds."""
    said = subprocess.run(
        [PYTHON, PROGRAM],
        input=json.dumps(calls),
        # Its list of prices would be fetched from elsewhere.
        env={**os.environ, "LITELLM_LOCAL_MODEL_COST_MAP": "True"},
        capture_output=True,
        text=True,
        timeout=110,
        check=False,
    )
    assert said.returncode == 0, said.stderr
    found: list[dict[str, Any]] = json.loads(said.stdout.strip().splitlines()[-1])
    return found


@pytest.fixture(scope="module")
def told(one_node: LocalNetwork) -> dict[str, dict[str, Any]]:
    named = calls(one_node)
    return dict(zip(named, asked(list(named.values())), strict=True))


@pytest.fixture(scope="module", autouse=True)
def _is_installed() -> None:
    if not PYTHON.exists():
        pytest.skip("LiteLLM is not installed: scripts/interop_environment litellm (320 MB)")


def picture(raw: bytes) -> Image.Image:
    image = Image.open(io.BytesIO(raw))
    image.load()
    return image


def inline(answer: dict[str, Any]) -> list[Image.Image]:
    assert "images" in answer, answer
    return [picture(base64.b64decode(image["b64_json"])) for image in answer["images"]]


def test_images_come_inline_and_by_url(told: dict[str, dict[str, Any]]) -> None:
    pictures = inline(told["inline"])
    assert [image.size for image in pictures] == [(128, 128)] * 2
    assert told["inline"]["created"] > 1_700_000_000
    linked = told["by url"]
    assert "images" in linked, linked
    for image, known in zip(linked["images"], pictures, strict=True):
        assert image["b64_json"] is None
        with urllib.request.urlopen(image["url"], timeout=20) as answer:  # noqa: S310 - our own
            assert picture(answer.read()).tobytes() == known.tobytes()


def test_our_own_fields_pass_through_it(told: dict[str, dict[str, Any]]) -> None:
    """The seed and the steps: the same image every time, whichever way it is asked for."""
    first = inline(told["inline"])[0]
    (again,) = inline(told["async"])
    assert again.tobytes() == first.tobytes()
    (as_jpeg,) = inline(told["as jpeg"])
    assert (as_jpeg.format, as_jpeg.size) == ("JPEG", (128, 128))


@pytest.mark.parametrize(
    ("name", "error", "status", "words"),
    [
        ("no prompt", "BadRequestError", 400, "Prompt must be provided"),
        ("wrong size", "BadRequestError", 400, "less than or equal to"),
        ("too many", "BadRequestError", 400, "less than or equal to"),
        ("no such model", "NotFoundError", 404, "limner/shapes"),
        ("wrong key", "AuthenticationError", 401, ""),
    ],
)
def test_errors_have_its_own_classes_and_our_words(
    told: dict[str, dict[str, Any]], name: str, error: str, status: int, words: str
) -> None:
    seen = told[name]
    assert (seen.get("error"), seen.get("status")) == (error, status), seen
    assert seen["is_litellms"]
    assert words in seen["message"]


async def test_a_gateway_that_has_no_place_is_told_from_one_that_nobody_serves(
    tmp_path: Path,
) -> None:
    """It asks again by itself, as late as it is told, and then gives up with the last answer."""
    request = {"model": "openai/m", "prompt": "a boat", "size": "64x64"}
    async with running(StubOrchestrator()) as orchestrator:
        poor = settings_for(
            tmp_path / "poor", orchestrator.uri, payments={"max_wei_in_flight": "1"}
        )
        async with serving(poor) as busy, serving(settings_for(tmp_path / "alone")) as alone:
            limited, unserved = await asyncio.to_thread(
                asked,
                [
                    {"url": one.gateway.url, "key": one.key, "call": "image", "request": request}
                    for one in (busy, alone)
                ],
            )
    assert (limited.get("error"), limited.get("status")) == ("RateLimitError", 429), limited
    assert "may spend at once" in limited["message"]
    assert (unserved.get("error"), unserved.get("status")) == ("ServiceUnavailableError", 503)
    assert not orchestrator.seen
