"""The ai-runner's other routes (livepeer-runner 1.5)."""

from importlib.metadata import version
from pathlib import Path
from typing import Any

import jsonschema_rs
import pytest
from structlog.testing import capture_logs

from network.wire.codec import Gpu
from network.wire.headers import JOB_ID
from node.discovery import hardware
from node.discovery.hardware import GpuReading
from node.engine.work import ModelState
from tests.node.container.runners import TOKEN, Caller, called, calling, running
from tests.node.fakes import MODEL, FakeEngine

ABOUT = {"pipeline": "text-to-image", "model_id": MODEL}
READING = GpuReading(Gpu("GPU-1", "A card", 9, 0, 5, 10), 40, 7)


@pytest.mark.parametrize("path", ["/health", "/health/"])
async def test_health_says_loading_ok_or_error(tmp_path: Path, path: str) -> None:
    engine = FakeEngine()
    async with called(tmp_path, engine) as caller:
        for state, healthy, status in (
            (ModelState(MODEL, "loading", 0.25), True, "LOADING"),
            (ModelState(MODEL, "ready", 1.0), True, "OK"),
            (ModelState(MODEL, "ready", 1.0), False, "LOADING"),
            (ModelState(MODEL, "failed"), True, "ERROR"),
        ):
            engine.change(state, healthy=healthy)
            answer = await caller.get(path)
            assert (answer.status, answer.json["status"]) == (200, status)


async def test_hardware_is_told_by_the_gpus_number(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hardware, "read_nvml", lambda: (READING, READING))
    gpu = {"id": "GPU-1", "name": "A card", "memory_total": 10, "memory_free": 5}
    info = {**gpu, "major": 9, "minor": 0}
    stats = {**gpu, "utilization_compute": 40, "utilization_memory": 7}
    async with called(tmp_path) as caller:
        for slash in ("", "/"):
            told = (await caller.get(f"/hardware/info{slash}")).json
            assert told == {**ABOUT, "gpu_info": {"0": info, "1": info}}
            told = (await caller.get(f"/hardware/stats{slash}")).json
            assert told == {**ABOUT, "gpu_stats": {"0": stats, "1": stats}}


async def test_a_machine_without_a_gpu_tells_an_empty_map(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hardware, "read_nvml", lambda: ())
    async with called(tmp_path) as caller:
        assert (await caller.get("/hardware/info")).json == {**ABOUT, "gpu_info": {}}


async def test_the_version_is_ours_or_the_one_set(tmp_path: Path) -> None:
    async with called(tmp_path) as caller:
        assert (await caller.get("/version")).json == {**ABOUT, "version": version("limner")}
    async with called(tmp_path, container={"version": "0.14.1"}) as caller:
        assert (await caller.get("/version/")).json == {**ABOUT, "version": "0.14.1"}


async def test_only_images_and_metrics_ask_for_the_token(tmp_path: Path) -> None:
    container = {"token": TOKEN}
    async with running(tmp_path, container=container) as runner, calling(runner) as caller:
        for path in ("/health", "/hardware/info", "/hardware/stats", "/version", "/openapi.json"):
            assert (await caller.get(path)).status == 200, path
        assert (await caller.get("/metrics")).status == 401
        shown = {"Authorization": f"Bearer {TOKEN}"}
        assert (await caller.get("/metrics", shown)).status == 200


async def test_metrics_count_images_that_nobody_pays_for_here(tmp_path: Path) -> None:
    async with called(tmp_path) as caller:
        assert (await caller.ask(num_images_per_prompt=3)).status == 200
        assert (await caller.ask(prompt="")).status == 400
        text = (await caller.get("/metrics")).text
    assert f'limner_node_jobs_total{{model="{MODEL}",outcome="delivered"}} 1.0' in text
    assert f'limner_node_images_total{{model="{MODEL}"}} 3.0' in text
    assert 'limner_node_refusals_total{reason="invalid_request"} 1.0' in text
    assert f'version{{app="limner-node",version="{version("limner")}"}} 1.0' in text


async def test_a_job_has_one_line_in_the_log_without_its_prompt(tmp_path: Path) -> None:
    async with called(tmp_path) as caller:
        with capture_logs() as lines:
            answer = await caller.ask(prompt="a secret wish")
            assert (await caller.ask(prompt="")).status == 400
    (line,) = (line for line in lines if line["event"] == "job")
    assert (line["outcome"], line["model"], line["images"]) == ("delivered", MODEL, 1)
    assert line["job_id"] == answer.headers[JOB_ID]
    assert "secret" not in repr(lines)


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/text-to-image", 405),
        ("PUT", "/text-to-image/", 405),
        ("POST", "/health", 405),
        ("GET", "/nowhere", 404),
        ("POST", "/image-to-image", 404),
    ],
)
async def test_another_path_or_method_is_said_so(
    tmp_path: Path, method: str, path: str, status: int
) -> None:
    async with called(tmp_path) as caller:
        answer = await caller.get(path, method=method)
        assert answer.status == status
        assert answer.json["detail"]["msg"]
        assert ("Allow" in answer.headers) == (status == 405)


async def test_the_document_is_whole_and_kept(tmp_path: Path) -> None:
    async with called(tmp_path) as caller:
        document = (await caller.get("/openapi.json")).json
        assert document["openapi"] == "3.1.0"
        operation = document["paths"]["/text-to-image"]["post"]
        assert operation["operationId"] == "genTextToImage"
        assert set(operation["responses"]) == {"200", "400", "401", "422", "500"}
        assert operation["security"] == []
        fields = document["components"]["schemas"]["TextToImageParams"]["properties"]
        assert fields["height"]["default"] == 576
        assert fields["loras"]["type"] == "string"
        assert references(document) <= set(document["components"]["schemas"])
        await _every_answer_is_as_documented(caller, document)


async def _every_answer_is_as_documented(caller: Caller, document: dict[str, Any]) -> None:
    for name in ("/health", "/hardware/info", "/hardware/stats", "/version"):
        schema = content(document["paths"][name]["get"]["responses"]["200"])
        assert_valid(document, schema, (await caller.get(name)).json)
    responses = document["paths"]["/text-to-image"]["post"]["responses"]
    asked: list[dict[str, Any]] = [
        {},
        {"prompt": ""},
        {"height": "wide"},
        {"model_id": "somebody/else"},
    ]
    for fields in asked:
        answer = await caller.ask(**fields)
        assert_valid(document, content(responses[str(answer.status)]), answer.json)


def content(response: dict[str, Any]) -> dict[str, Any]:
    schema: dict[str, Any] = response["content"]["application/json"]["schema"]
    return schema


def assert_valid(document: dict[str, Any], schema: dict[str, Any], value: object) -> None:
    whole = {**schema, "components": document["components"]}
    jsonschema_rs.validator_for(whole).validate(value)


def references(value: object) -> set[str]:
    if isinstance(value, dict):
        own = {value["$ref"].rpartition("/")[2]} if isinstance(value.get("$ref"), str) else set()
        return own.union(*map(references, value.values()))
    if isinstance(value, list):
        return set().union(*map(references, value))
    return set()
