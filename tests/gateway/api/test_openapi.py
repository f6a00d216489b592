"""The published contract is the one that is kept."""

import asyncio
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from gateway.api.output import output_fields
from gateway.config import JobSettings
from network.wire.limits import Limits
from network.wire.messages import TextToImageRequest
from tests.gateway.api.surface import LIMITS, Surface, open_surface

BOUNDED = Limits(max_width=1024, max_height=576, max_steps=50, max_images=2)


async def document_of(surface: Surface) -> dict[str, Any]:
    async with surface.client.get(f"{surface.url}/openapi.json") as response:
        assert response.status == 200
        document: dict[str, Any] = await response.json()
        return document


async def test_the_document_states_the_bounds_that_are_enforced(surface: Surface) -> None:
    document = await document_of(surface)
    assert document["openapi"] == "3.1.0"
    fields = document["components"]["schemas"]["TextToImageParams"]["properties"]
    assert fields["width"]["maximum"] == LIMITS.max_width
    assert fields["num_inference_steps"]["maximum"] == LIMITS.max_steps
    ours = {"deterministic", *output_fields()}
    assert set(fields) == set(TextToImageRequest.model_fields) | ours
    assert len(set(fields) - ours) == 11, "Livepeer's"


async def test_every_status_of_the_endpoint_is_documented(surface: Surface) -> None:
    operation = (await document_of(surface))["paths"]["/text-to-image"]["post"]
    assert set(operation["responses"]) == {
        *("200", "202", "400", "401", "402", "403", "404", "405", "408", "409", "413", "415"),
        *("417", "422", "429", "431", "500", "503", "504"),
    }
    assert operation["security"] == [{"HTTPBearer": []}]
    assert operation["operationId"] == "genTextToImage"


async def test_every_reference_leads_somewhere(surface: Surface) -> None:
    document = await document_of(surface)

    def references(value: object) -> list[str]:
        if isinstance(value, dict):
            own = [value["$ref"]] if isinstance(value.get("$ref"), str) else []
            return own + [found for inner in value.values() for found in references(inner)]
        if isinstance(value, list):
            return [found for inner in value for found in references(inner)]
        return []

    known = document["components"]["schemas"]
    found = {reference.removeprefix("#/components/schemas/") for reference in references(document)}
    assert found
    assert found <= set(known)


#: An idempotency key and a request id name one request whose answer is kept, and a stream is no such
#: answer: neither can be said in a schema.
HOOKS = """
import re
import uuid
import schemathesis

@schemathesis.hook
def before_call(context, case, kwargs):
    if case.meta is not None and case.meta.generation.mode.is_negative:
        return
    key = case.headers.get("Idempotency-Key")
    if isinstance(case.body, dict) and case.body.get("stream") is True:
        for name in ("Idempotency-Key", "Prefer"):
            case.headers.pop(name, None)
    elif isinstance(key, str) and 0 < len(key) < 200:
        case.headers["Idempotency-Key"] = key + uuid.uuid4().hex
    name = case.headers.get("X-Request-Id")
    if isinstance(name, str) and re.fullmatch("[A-Za-z0-9_-]{16,64}", name):
        case.headers["X-Request-Id"] = uuid.uuid4().hex
"""


@pytest.mark.slow
async def test_schemathesis_finds_nothing(tmp_path: Path) -> None:
    program = str(Path(sys.executable).parent / "schemathesis")
    async with open_surface(
        tmp_path / "images",
        limits=BOUNDED,
        keeps=JobSettings(),
        body_timeout_seconds=30.0,
    ) as surface:
        command = [program, "run", f"{surface.url}/openapi.json", "--no-color", "--seed", "1"]
        command += ["-H", "Authorization: Bearer good", "--max-examples", "10"]
        # DELETE ends a job; how it ended can be looked up like any other end.
        command += ["--exclude-checks", "use_after_free"]
        (tmp_path / "hooks.py").write_text(HOOKS)
        done = await asyncio.to_thread(
            subprocess.run,
            command,
            cwd=tmp_path,
            env={**os.environ, "SCHEMATHESIS_HOOKS": "hooks", "PYTHONPATH": str(tmp_path)},
            capture_output=True,
            text=True,
            check=False,
        )
    assert done.returncode == 0, done.stdout[-4000:]
