"""The built-in model's LoRAs over HTTP: what they draw, beside one another, and what is refused."""

import asyncio
import base64
import json
from collections.abc import AsyncIterator
from io import BytesIO
from typing import Any

import numpy as np
import pytest
import pytest_asyncio
from numpy.typing import NDArray
from PIL import Image

from network.runtime.clock import SystemClock
from network.units import JobId
from node.app import RunningNode, open_node
from node.config.catalogue import BUILTIN_FOLDER, BUILTIN_MODEL
from node.config.loras import builtin_loras
from node.engine.backend import open_process_engine
from node.engine.options import EngineOptions
from node.engine.work import ImageJob, LoraSpec, ModelSpec
from tests.node.config.test_loras import lora_file
from tests.node.nodes import Buyer, eventually, settings_for

pytestmark = [
    pytest.mark.asyncio(loop_scope="module"),
    pytest.mark.filterwarnings("ignore"),
    pytest.mark.timeout(300),  # a worker's start takes seconds, on a busy machine many
]

_SECOND = "second/shapes"
_BUILTIN = [LoraSpec(lora.lora_id, lora.path) for lora in builtin_loras([BUILTIN_MODEL])]
_JOB: dict[str, Any] = {
    "prompt": "a red circle on a white background",
    "width": 256,
    "height": 256,
    "num_inference_steps": 8,
    "seed": 3,
}
_NIGHT, _OUTLINES = {"limner/night": 1.0}, {"limner/outlines": 1.0}


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def node(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[RunningNode]:
    """Return a node with the built-in model, twice, its LoRAs, and two more."""
    folder = tmp_path_factory.mktemp("node")
    nowhere = {"unet.no.such.lora_A.weight": (2, 4), "unet.no.such.lora_B.weight": (4, 2)}
    lora_file(folder / "loras" / "odd.safetensors", nowhere)
    settings = await settings_for(
        folder,
        models=[
            {"id": BUILTIN_MODEL, "price": "5/2", "capacity": 12},
            {"id": _SECOND, "path": BUILTIN_FOLDER, "warm": False},
        ],
        loras_dir=folder / "loras",
        loras=[
            {"id": "odd"},
            {"id": "for/second", "path": folder / "loras/odd.safetensors", "models": [_SECOND]},
        ],
        engine={"threads": 1},
        limits={"max_loras": 3},
    )
    async with open_node(settings) as running, Buyer(running) as buyer:

        async def is_ready() -> bool:
            return bool((await buyer.get("/status", admin=True)).json["ready"])

        await eventually(is_ready, seconds=120)
        yield running


async def _draw(buyer: Buyer, loras: dict[str, float] | None = None) -> NDArray[np.int64]:
    answer = await buyer.ask(**_JOB, loras=json.dumps(loras) if loras is not None else "")
    assert answer.status == 200, answer.text
    png = base64.b64decode(answer.json["images"][0]["url"].partition(",")[2])
    return np.asarray(Image.open(BytesIO(png))).astype(np.int64)


def _corner(pixels: NDArray[np.int64]) -> float:
    return float(pixels[:24, :24].mean())


def _centre(pixels: NDArray[np.int64]) -> NDArray[np.float64]:
    return np.asarray(pixels[124:132, 124:132].mean(axis=(0, 1)))


def _psnr(one: NDArray[np.int64], other: NDArray[np.int64]) -> float:
    error = float(((one - other) ** 2).mean())
    return float("inf") if error == 0 else float(10 * np.log10(255**2 / error))


async def test_night_is_dark_outlines_are_hollow_and_both_go_together(node: RunningNode) -> None:
    async with Buyer(node) as buyer:
        plain, night = await _draw(buyer), await _draw(buyer, _NIGHT)
        hollow, both = await _draw(buyer, _OUTLINES), await _draw(buyer, _NIGHT | _OUTLINES)
    assert _corner(plain) > 200
    assert _corner(hollow) > 200
    assert _corner(night) < 60
    assert _corner(both) < 60
    for filled in (plain, night):
        red, green, blue = _centre(filled)
        assert red > 150
        assert max(green, blue) < 110
    assert _centre(hollow).min() > 180  # the white behind it
    assert _centre(both).max() < 110


async def test_a_weight_of_nothing_is_no_lora_and_half_is_between(node: RunningNode) -> None:
    async with Buyer(node) as buyer:
        plain = await _draw(buyer)
        assert np.array_equal(await _draw(buyer, {}), plain)
        assert np.array_equal(await _draw(buyer, {"limner/outlines": 0.0}), plain)
        weights = (0.25, 0.5, 1.0)
        holes = [
            float(np.abs(await _draw(buyer, {"limner/outlines": one}) - plain).mean())
            for one in weights
        ]
    assert 0 < holes[0] < holes[1] < holes[2]


async def test_twelve_requests_at_once_with_four_sets_each_get_the_image_of_their_own(
    node: RunningNode,
) -> None:
    sets: list[dict[str, float]] = [{}, _NIGHT, _OUTLINES, {**_NIGHT, "limner/outlines": 0.6}]
    async with Buyer(node) as buyer:
        alone = [await _draw(buyer, loras) for loras in sets]
        asked = [number % 4 for number in range(12)]
        together = await asyncio.gather(*(_draw(buyer, sets[number]) for number in asked))
    for number, image in zip(asked, together, strict=True):
        likeness = [_psnr(image, other) for other in alone]
        assert likeness[number] >= 40
        assert sum(value >= 30 for value in likeness) == 1


@pytest.mark.parametrize(
    ("loras", "words"),
    [
        ("not json", "Unable to parse 'loras' as JSON."),
        ("[]", "'loras' must be a JSON object"),
        ("3", "'loras' must be a JSON object"),
        ('{"limner/night": "strong"}', "All strengths must be numbers"),
        ('{"limner/night": -1}', "All strengths must be numbers"),
        ('{"limner/night": null}', "All strengths must be numbers"),
        ('{"limner/night": 1e999}', "Unable to parse 'loras' as JSON."),
        ('{"a": 1, "b": 1, "c": 1, "d": 1}', "Too many LoRas provided. Maximum is 3."),
        ('{"../secret": 1}', "LoRa '../secret' is not offered here."),
        (
            '{"limner/night": 1, "no/such": 1}',
            "'no/such' is not offered here. Available for 'limner/shapes': limner/night, limner/out",
        ),
        (
            '{"for/second": 1}',
            "incompatible with base model: 'for/second' is for second/shapes, not for 'limner/",
        ),
        (
            '{"odd": 1}',
            "incompatible with base model: 'odd', its layers are not this model's.",
        ),
    ],
)
async def test_what_cannot_be_is_the_clients_fault_and_says_why(
    node: RunningNode, loras: str, words: str
) -> None:
    async with Buyer(node) as buyer:
        answer = await buyer.ask(**_JOB, loras=loras)
    assert answer.status == 400
    assert answer.text.startswith("text-to-image returned 400: ")
    assert words in answer.text


async def test_a_model_that_is_not_loaded_yet_takes_its_loras_at_the_first_job() -> None:
    clock = SystemClock()
    job = ImageJob(JobId("a"), BUILTIN_MODEL, (_JOB["prompt"],), 256, 256, 4, 7.5, (3,))
    night = ImageJob(
        JobId("b"),
        BUILTIN_MODEL,
        job.prompts,
        256,
        256,
        4,
        7.5,
        (3,),
        loras=(("limner/night", 1),),
    )
    async with open_process_engine(
        [ModelSpec(BUILTIN_MODEL, BUILTIN_FOLDER, warm=False)],
        device="cpu",
        clock=clock,
        options=EngineOptions(threads=1),
        loras=_BUILTIN,
    ) as engine:
        dark, light = await asyncio.gather(
            engine.generate(night, lambda _: None), engine.generate(job, lambda _: None)
        )
    corners = [
        _corner(np.asarray(Image.open(BytesIO(result.images[0].png))).astype(np.int64))
        for result in (dark, light)
    ]
    assert corners[0] < 60
    assert corners[1] > 200
