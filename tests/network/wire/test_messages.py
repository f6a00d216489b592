"""The request body: what is accepted, what is refused, and in which words."""

import json
from typing import Any

import jsonschema_rs
import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from network.errors import ProblemError
from network.wire.messages import (
    LARGEST_SEED,
    ImageResponse,
    Limits,
    Media,
    TextToImageRequest,
    check_limits,
    parse_loras,
    parse_request,
    problem_schema,
    prompt_parts,
    request_schema,
    response_schema,
)
from tests.network.wire.requests import SURFACES, bodies, json_values, mutated

problem_validator = jsonschema_rs.validator_for(problem_schema())


def parsed(**fields: Any) -> TextToImageRequest:
    return parse_request(orjson.dumps({"prompt": "a cat", **fields}))


def refusal(body: bytes, limits: Limits = Limits()) -> dict[str, Any]:  # noqa: B008  frozen
    with pytest.raises(ProblemError) as raised:
        check_limits(parse_request(body), limits)
    problem = raised.value.problem
    answer: dict[str, Any] = orjson.loads(problem.body())
    assert problem_validator.is_valid(answer)
    return {"status": problem.status, **answer}


def locations(answer: dict[str, Any]) -> set[str]:
    assert answer["status"] == 422
    return {fault["loc"][1] for fault in answer["detail"]}


def test_defaults_are_those_of_the_endpoint() -> None:
    assert parsed().model_dump() == {
        "prompt": "a cat",
        "model_id": "",
        "loras": "",
        "height": 576,
        "width": 1024,
        "guidance_scale": 7.5,
        "negative_prompt": "",
        "safety_check": True,
        "seed": None,
        "num_inference_steps": 50,
        "num_images_per_prompt": 1,
        "deterministic": False,
    }


def test_the_body_of_the_official_client_is_accepted() -> None:
    body = (
        b'{"guidance_scale":7.5,"height":576,"loras":"","model_id":"","negative_prompt":"",'
        b'"num_images_per_prompt":1,"num_inference_steps":50,"prompt":"a cat",'
        b'"safety_check":true,"width":1024}'
    )
    request = parse_request(body)
    check_limits(request, Limits())
    assert request == parsed()


def test_unknown_keys_are_ignored() -> None:
    assert parsed(scheduler="ddim", strength=None) == parsed()


def test_whole_floats_are_integers() -> None:
    request = parsed(width=512.0, seed=7.0, guidance_scale=3)
    assert (request.width, request.seed, request.guidance_scale) == (512, 7, 3.0)
    assert type(request.width) is int
    assert type(request.seed) is int


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b" \n",
        b"{",
        b"null",
        b"[]",
        b'"a"',
        b"3",
        b"\xff\xfe",
        b'{"prompt":"\xff"}',
        b'{"prompt":"\\ud800"}',
        b'{"prompt":"a","guidance_scale":NaN}',
        b'{"prompt":"a","guidance_scale":1e400}',
        b'{"prompt":"a"} trailing',
        b"[" * 100_000,
        b'{"a":' * 100_000,
        b"\xef\xbb\xbf{}",
    ],
)
def test_what_is_no_json_object_is_answered_422_in_the_shape_clients_parse(body: bytes) -> None:
    answer = refusal(body)
    assert answer["status"] == 422
    assert answer["detail"][0]["loc"][0] == "body"
    assert answer["error"]["code"] == "validation_error"
    assert len(orjson.dumps(answer)) < 1000


@pytest.mark.parametrize(
    "fields",
    [
        {"width": "576"},
        {"width": 576.5},
        {"width": True},
        {"width": None},
        {"seed": None},
        {"seed": "7"},
        {"seed": 1.5},
        {"safety_check": 1},
        {"deterministic": "yes"},
        {"deterministic": None},
        {"safety_check": "true"},
        {"safety_check": None},
        {"guidance_scale": "7.5"},
        {"guidance_scale": True},
        {"loras": {"a": 1}},
        {"prompt": None},
        {"prompt": ["a"]},
        {"model_id": 5},
        {"negative_prompt": None},
    ],
)
def test_a_wrong_type_is_named_by_its_field(fields: dict[str, Any]) -> None:
    answer = refusal(orjson.dumps({"prompt": "a cat", **fields}))
    assert locations(answer) == set(fields)
    assert answer["error"]["param"] == next(iter(fields))


def test_a_missing_prompt_is_a_missing_field() -> None:
    answer = refusal(b"{}")
    assert answer["detail"] == [
        {"loc": ["body", "prompt"], "msg": "Field required", "type": "missing"}
    ]


@pytest.mark.parametrize("prompt", ["", " ", "\t\n", "|", " | ", "\u200b", "\u3000\ufeff", "\x00"])
def test_a_blank_prompt_is_answered_400_in_the_runners_words(prompt: str) -> None:
    answer = refusal(orjson.dumps({"prompt": prompt}), Limits(prompt_parts=2))
    assert answer["status"] == 400
    assert answer["detail"]["msg"] == "Prompt must be provided."


def test_more_prompts_than_the_family_reads_are_refused() -> None:
    answer = refusal(orjson.dumps({"prompt": "a|b"}))
    assert answer["status"] == 400
    assert "takes one prompt" in answer["detail"]["msg"]
    check_limits(parsed(prompt="a|b", negative_prompt="|"), Limits(prompt_parts=2))
    answer = refusal(orjson.dumps({"prompt": "a|b|c"}), Limits(prompt_parts=2))
    assert "at most 2 prompts" in answer["detail"]["msg"]
    answer = refusal(orjson.dumps({"prompt": "a", "negative_prompt": "b|c"}))
    assert answer["error"]["param"] == "negative_prompt"


def test_an_empty_part_of_a_prompt_is_named() -> None:
    answer = refusal(orjson.dumps({"prompt": "a|"}), Limits(prompt_parts=2))
    assert answer["status"] == 400
    assert "Part 2" in answer["detail"]["msg"]


def test_a_prompt_is_split_at_bars_and_a_lone_one_stays_as_it_is() -> None:
    assert prompt_parts(" a cat ") == (" a cat ",)
    assert prompt_parts("a cat | a dog") == ("a cat", "a dog")


def test_a_size_between_multiples_is_told_its_neighbours() -> None:
    answer = refusal(orjson.dumps({"prompt": "a", "width": 500, "height": 501}))
    assert locations(answer) == {"width", "height"}
    assert "496 and 504" in answer["detail"][1]["msg"]


def test_every_number_out_of_bounds_is_listed_in_one_answer() -> None:
    fields = {
        "width": 10**30,
        "height": 0,
        "guidance_scale": -1,
        "num_inference_steps": 0,
        "num_images_per_prompt": 5,
        "seed": -1,
        "model_id": "m" * 201,
        "negative_prompt": "x" * 2001,
    }
    answer = refusal(json.dumps({"prompt": "a", **fields}).encode())
    assert locations(answer) == set(fields)
    assert answer["error"]["param"] is None


def test_every_image_of_a_request_has_a_32_bit_seed() -> None:
    check_limits(parsed(seed=LARGEST_SEED), Limits())
    check_limits(parsed(seed=LARGEST_SEED - 3, num_images_per_prompt=4), Limits())
    body = orjson.dumps({"prompt": "a", "seed": LARGEST_SEED - 2, "num_images_per_prompt": 4})
    answer = refusal(body)
    assert locations(answer) == {"seed"}
    assert str(LARGEST_SEED - 3) in answer["detail"][0]["msg"]


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("not json", "Unable to parse 'loras' as JSON."),
        ("[]", "must be a JSON object"),
        ("3", "must be a JSON object"),
        ('{"a": -1}', "greater than or equal to 0.0"),
        ('{"a": true}', "greater than or equal to 0.0"),
        ('{"a": "x"}', "greater than or equal to 0.0"),
        ('{"a": null}', "greater than or equal to 0.0"),
        ('{"a": "NaN"}', "greater than or equal to 0.0"),
        ('{"a": 1e300}', "greater than or equal to 0.0"),
        ('{"a":1,"b":1,"c":1}', "Too many LoRas provided. Maximum is 2."),
        ('{"http://x": 1}', "A LoRa name is"),
        ('{"": 1}', "A LoRa name is"),
        ("{" + " " * 2000 + "}", "at most 2000 characters"),
    ],
)
def test_bad_loras_are_answered_400_with_the_reason(text: str, reason: str) -> None:
    answer = refusal(orjson.dumps({"prompt": "a", "loras": text}), Limits(max_loras=2))
    assert answer["status"] == 400
    assert reason in answer["detail"]["msg"]
    assert answer["error"]["param"] == "loras"


def test_a_surface_without_loras_takes_none() -> None:
    check_limits(parsed(loras="{}"), Limits())
    answer = refusal(orjson.dumps({"prompt": "a", "loras": '{"a":1}'}))
    assert answer["detail"]["msg"] == "Too many LoRas provided. Maximum is 0."


def test_loras_are_names_and_weights_in_order() -> None:
    text = '{ "latent-consistency/lcm-lora-sdxl": 1.0, "nerijs/pixel-art-xl": "1.2"}'
    assert parse_loras(text, Limits(max_loras=4)) == (
        ("latent-consistency/lcm-lora-sdxl", 1.0),
        ("nerijs/pixel-art-xl", 1.2),
    )
    assert parse_loras("", Limits()) == parse_loras(" {} ", Limits()) == ()


def outcome(body: bytes, limits: Limits) -> TextToImageRequest | None:
    """None for a refusal, which is a 400 or 422 of the envelope's shape."""
    try:
        request = parse_request(body)
        check_limits(request, limits)
    except ProblemError as error:
        refused = error.problem
    else:
        return request
    assert refused.status in (400, 422)
    assert problem_validator.is_valid(orjson.loads(refused.body()))
    return None


@given(st.binary(max_size=400), st.sampled_from(SURFACES))
def test_arbitrary_bytes_are_answered(body: bytes, limits: Limits) -> None:
    outcome(body, limits)


@given(json_values, st.sampled_from(SURFACES))
def test_arbitrary_json_is_answered(value: object, limits: Limits) -> None:
    outcome(json.dumps(value).encode(), limits)


@pytest.mark.parametrize("limits", SURFACES)
@given(data=st.data())
def test_the_schema_and_the_check_accept_the_same_bodies(
    limits: Limits, data: st.DataObject
) -> None:
    schema = jsonschema_rs.validator_for(request_schema(limits))
    value = data.draw(bodies(limits) | mutated(limits))
    accepted = outcome(json.dumps(value).encode(), limits) is not None
    reasons = [error.message for error in schema.iter_errors(value)]
    assert accepted == (not reasons), reasons


@pytest.mark.parametrize("limits", SURFACES)
def test_the_published_schema_is_a_valid_schema(limits: Limits) -> None:
    for schema in (request_schema(limits), response_schema(), problem_schema()):
        assert jsonschema_rs.meta.is_valid(schema)


def test_a_field_whose_default_is_out_of_bounds_has_to_be_given() -> None:
    limits = Limits(max_width=512)
    assert request_schema(limits)["required"] == ["prompt", "width"]
    assert locations(refusal(b'{"prompt":"a"}', limits)) == {"width"}


def test_an_answer_is_valid_by_its_schema() -> None:
    answer = ImageResponse(images=(Media(url="http://x/y.png", seed=7, nsfw=False),))
    assert jsonschema_rs.validator_for(response_schema()).is_valid(answer.model_dump(mode="json"))
