"""Prompts over the node's HTTP, with real models: parts for several encoders, and what was cut."""

import base64
from collections.abc import AsyncIterator
from typing import Any

import pytest
import pytest_asyncio

from network.units import ModelId
from network.wire.headers import WARNINGS
from node.app import open_node
from tests.node.engine import tiny
from tests.node.nodes import Answer, Buyer, eventually, settings_for

pytestmark = [
    pytest.mark.asyncio(loop_scope="module"),
    pytest.mark.filterwarnings("ignore"),
    pytest.mark.timeout(300),  # the worker's start takes seconds, on a busy machine many
]

_ONE, _TWO = ModelId("tiny/one"), ModelId("tiny/two")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def buyer(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Buyer]:
    """Return a client of a node that serves a model of one text encoder and one of two."""
    root = tmp_path_factory.mktemp("node")
    tiny.stable_diffusion(root / "one", "dpm")
    tiny.stable_diffusion_xl(root / "two")
    models = [
        {"id": name, "path": root / folder, "price": "5/2", "capacity": 2}
        for name, folder in ((_ONE, "one"), (_TWO, "two"))
    ]
    settings = await settings_for(root, models=models, engine={"device": "cpu", "threads": 1})
    async with open_node(settings) as node, Buyer(node) as opened:

        async def are_ready() -> bool:
            return (await opened.get("/healthz", admin=True)).status == 200

        await eventually(are_ready, seconds=90)
        yield opened


async def _ask(buyer: Buyer, model: ModelId, prompt: str, **fields: Any) -> Answer:
    return await buyer.ask(
        await buyer.headers(model), model_id=model, prompt=prompt, num_inference_steps=2, **fields
    )


def _png(answer: Answer) -> bytes:
    assert answer.status == 200, answer.text
    (image,) = answer.json["images"]
    return base64.b64decode(image["url"].partition(",")[2])


async def test_each_part_of_a_prompt_reaches_its_own_text_encoder(buyer: Buyer) -> None:
    prompts = ["a cat", "a cat | a cat", "a cat | at night", "at night | a cat", "at night"]
    images = [_png(await _ask(buyer, _TWO, prompt)) for prompt in prompts]
    assert images[0] == images[1]
    assert len(set(images)) == 4
    negative = _png(await _ask(buyer, _TWO, "a cat", negative_prompt="at night | a dog"))
    assert negative not in images


async def test_a_model_with_one_text_encoder_refuses_parts_and_says_so(buyer: Buyer) -> None:
    answer = await _ask(buyer, _ONE, "a cat | at night")
    assert answer.status == 400
    assert "The model takes one prompt; leave out '|'; 'prompt' has 2." in answer.text


async def test_a_prompt_that_is_cut_says_what_was_read_of_it(buyer: Buyer) -> None:
    short = await _ask(buyer, _ONE, "a " * 75)
    assert short.status == 200
    assert WARNINGS not in short.headers
    long = await _ask(buyer, _ONE, "a " * 80, negative_prompt="b " * 90)
    assert long.headers[WARNINGS] == (
        "the model reads 75 of the prompt's 80 tokens and cuts the rest; "
        "the model reads 75 of the negative prompt's 90 tokens and cuts the rest"
    )
    assert _png(long) == _png(await _ask(buyer, _ONE, "a " * 75, negative_prompt="b " * 75))


async def test_each_encoder_says_for_itself_what_it_cut(buyer: Buyer) -> None:
    both = await _ask(buyer, _TWO, "a " * 80)
    assert both.headers[WARNINGS].count("reads 75 of the prompt's 80 tokens") == 2
    second = await _ask(buyer, _TWO, "a cat | " + "a " * 100)
    assert second.headers[WARNINGS] == (
        "text encoder 2 reads 75 of the prompt's 100 tokens and cuts the rest"
    )


async def test_a_negative_prompt_that_no_guidance_reads_is_said_to_have_no_effect(
    buyer: Buyer,
) -> None:
    answer = await _ask(buyer, _TWO, "a cat", negative_prompt="a dog", guidance_scale=1.0)
    assert "the negative prompt had no effect" in answer.headers[WARNINGS]
    assert _png(answer) == _png(await _ask(buyer, _TWO, "a cat", guidance_scale=1.0))
