"""The ai-runner's request and answer (livepeer-runner 1.1 and 1.2), row by row."""

import base64
from pathlib import Path
from typing import Any

import orjson
import pytest

from network.units import ModelId
from network.wire.headers import GUIDANCE, STEPS, WARNINGS
from network.wire.messages import TextToImageRequest
from network.wire.safety import Safety
from node.container.body import _Lax, parse
from node.engine.work import ModelFacts, ModelState
from tests.node.container.runners import called
from tests.node.fakes import MODEL, FakeEngine

PLAIN: dict[str, Any] = {"width": ..., "height": ..., "num_inference_steps": ..., "seed": ...}


def test_the_lax_fields_are_those_of_the_request() -> None:
    assert list(_Lax.model_fields) == list(TextToImageRequest.model_fields)
    required = [name for name, field in _Lax.model_fields.items() if field.is_required()]
    assert required == ["prompt"]


async def test_only_the_prompt_is_required_and_the_defaults_are_the_ai_runners(
    tmp_path: Path,
) -> None:
    engine = FakeEngine()
    async with called(tmp_path, engine) as caller:
        answer = await caller.ask(model_id=..., **PLAIN)
    assert answer.status == 200, answer.text
    (job,) = engine.jobs
    assert (job.height, job.width, job.steps, job.guidance) == (576, 1024, 50, 7.5)
    assert (job.negative_prompts, job.loras, job.safety_check) == ((), (), True)
    assert len(job.seeds) == 1
    assert job.model_id == MODEL


@pytest.mark.parametrize(
    ("sent", "name", "read"),
    [
        ({"height": "576"}, "height", 576),
        ({"height": 576.0}, "height", 576),
        ({"width": "1024"}, "width", 1024),
        ({"guidance_scale": "3.5"}, "guidance_scale", 3.5),
        ({"guidance_scale": 3}, "guidance_scale", 3.0),
        ({"safety_check": "true"}, "safety_check", True),
        ({"safety_check": 1}, "safety_check", True),
        ({"safety_check": "false"}, "safety_check", False),
        ({"safety_check": 0}, "safety_check", False),
        ({"seed": "7"}, "seed", 7),
        ({"num_inference_steps": "4"}, "num_inference_steps", 4),
        ({"num_images_per_prompt": 2.0}, "num_images_per_prompt", 2),
        ({"unknown": {"deep": []}}, "num_images_per_prompt", 1),
        ({}, "seed", None),
    ],
)
def test_lax_types_are_read_as_pydantic_reads_them(
    sent: dict[str, Any], name: str, read: object
) -> None:
    found = getattr(parse(orjson.dumps({"prompt": "x", **sent})), name)
    assert (type(found), found) == (type(read), read)


@pytest.mark.parametrize(
    ("fields", "place"),
    [
        ({"height": 576.5}, "height"),
        ({"height": "wide"}, "height"),
        ({"height": None}, "height"),
        ({"seed": None}, "seed"),
        ({"prompt": ...}, "prompt"),
        ({"prompt": 5}, "prompt"),
        ({"prompt": None}, "prompt"),
        ({"loras": {"a": 1}}, "loras"),
        ({"model_id": 5}, "model_id"),
        ({"safety_check": "perhaps"}, "safety_check"),
        ({"guidance_scale": "nan"}, "guidance_scale"),
        ({"guidance_scale": []}, "guidance_scale"),
        ({"seed": 2**64}, "seed"),
    ],
)
async def test_a_wrong_type_is_422_and_names_its_place(
    tmp_path: Path, fields: dict[str, Any], place: str
) -> None:
    engine = FakeEngine()
    async with called(tmp_path, engine) as caller:
        answer = await caller.ask(**fields)
    assert answer.status == 422
    (fault,) = answer.json["detail"]
    assert fault["loc"] == ["body", place]
    assert fault["msg"]
    assert fault["type"]
    assert place in answer.json["error"]["message"]
    assert not engine.jobs


@pytest.mark.parametrize("body", [b"", b"{", b"[]", b"null", b"3", b"\xff", b"[" * 5000, b"NaN"])
async def test_what_is_no_json_object_is_422(tmp_path: Path, body: bytes) -> None:
    async with called(tmp_path) as caller:
        answer = await caller.post(body)
        assert answer.status == 422
        assert answer.json["detail"][0]["loc"][0] == "body"


@pytest.mark.parametrize("kind", ["text/plain", "application/x-www-form-urlencoded", ""])
async def test_a_body_that_does_not_say_it_is_json_is_422(tmp_path: Path, kind: str) -> None:
    """What a browser sends across sites without asking must not reach the GPU."""
    engine = FakeEngine()
    async with called(tmp_path, engine) as caller:
        assert (await caller.post(b'{"prompt":"x"}', {"Content-Type": kind})).status == 422
    assert not engine.jobs


async def test_the_trailing_slash_is_the_same_route(tmp_path: Path) -> None:
    async with called(tmp_path) as caller:
        body = b'{"prompt":"x","width":64,"height":64,"num_inference_steps":1}'
        assert (await caller.post(body, path="/text-to-image/")).status == 200


async def test_images_come_in_order_as_png_data_urls_with_seeds_counted_up(tmp_path: Path) -> None:
    async with called(tmp_path) as caller:
        answer = await caller.ask(num_images_per_prompt=3)
    assert answer.headers["Content-Type"].startswith("application/json")
    images = answer.json["images"]
    assert [image["seed"] for image in images] == [7, 8, 9]
    for image in images:
        assert image["nsfw"] is False
        kind, _, data = image["url"].partition(",")
        assert kind == "data:image/png;base64"
        assert base64.b64decode(data).startswith(b"\x89PNG\r\n\x1a\n")


async def test_a_drawn_seed_and_its_successors_have_32_bits(tmp_path: Path) -> None:
    async with called(tmp_path) as caller:
        images = (await caller.ask(seed=..., num_images_per_prompt=4)).json["images"]
        seeds = [image["seed"] for image in images]
        assert seeds == list(range(seeds[0], seeds[0] + 4))
        assert seeds[0] >= 0
        assert seeds[-1] < 2**32
        last = await caller.ask(seed=2**32 - 1)
        assert last.json["images"][0]["seed"] == 2**32 - 1


async def test_nsfw_is_true_where_the_checker_objects_and_never_null(tmp_path: Path) -> None:
    engine = FakeEngine()
    engine.verdict = Safety.FLAGGED
    async with called(tmp_path, engine) as caller:
        (image,) = (await caller.ask()).json["images"]
        assert (image["nsfw"], image["safety"]) == (True, "flagged")
        assert (await caller.ask(safety_check=False)).status == 200
    assert [job.safety_check for job in engine.jobs] == [True, False]


async def test_a_distilled_models_profile_replaces_what_clients_send_unasked(
    tmp_path: Path,
) -> None:
    models = [{"id": MODEL, "path": tmp_path / "model", "profile": {"steps": 4, "guidance": 0.0}}]
    engine = FakeEngine()
    async with called(tmp_path, engine, models=models) as caller:
        unasked = await caller.ask(num_inference_steps=50, guidance_scale=7.5)
        assert (unasked.headers[STEPS], unasked.headers[GUIDANCE]) == ("4", "0")
        assert "num_inference_steps 4 for 50" in unasked.headers[WARNINGS]
        chosen = await caller.ask(num_inference_steps=9, guidance_scale=2.0)
        assert (chosen.headers[STEPS], chosen.headers[GUIDANCE]) == ("9", "2")
        assert WARNINGS not in chosen.headers
    assert [(job.steps, job.guidance) for job in engine.jobs] == [(4, 0.0), (9, 2.0)]


async def test_an_empty_model_id_is_the_first_model_and_ids_are_exact(tmp_path: Path) -> None:
    other = ModelId("other/model")
    path = tmp_path / "model"
    models = [{"id": MODEL, "path": path}, {"id": other, "path": path}]
    engine = FakeEngine(MODEL, other)
    async with called(tmp_path, engine, models=models) as caller:
        for model_id in ("", other):
            assert (await caller.ask(model_id=model_id)).status == 200
        wrong = await caller.ask(model_id="Other/Model")
    assert [job.model_id for job in engine.jobs] == [MODEL, other]
    assert wrong.status == 400
    told = f"pipeline configured with {MODEL}, {other} but called with Other/Model."
    assert wrong.json["detail"] == {"msg": told}


async def test_loras_are_a_json_object_in_a_string_and_only_those_listed(tmp_path: Path) -> None:
    engine = FakeEngine()
    engine.states[MODEL] = ModelState(MODEL, "ready", 1.0, facts=ModelFacts(max_loras=4))
    async with called(tmp_path, engine) as caller:
        assert (await caller.ask(loras="")).status == 200
        assert (await caller.ask(loras="{}")).status == 200
        for loras, words in (
            ("not json", "Unable to parse 'loras' as JSON."),
            ('{"a/b": -1}', "greater than or equal to 0.0"),
            ('{"a":1,"b":1,"c":1,"d":1,"e":1}', "Too many LoRas provided. Maximum is 4."),
            ('{"somebody/else": 1.0}', "somebody/else"),
            ("[]", "must be a JSON object"),
        ):
            answer = await caller.ask(loras=loras)
            assert answer.status == 400
            assert words in answer.json["detail"]["msg"]
