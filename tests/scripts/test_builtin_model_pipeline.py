"""The shipped pipeline loads as stock classes, follows prompts and obeys its parameters."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import DiffusionPipeline
from numpy.typing import NDArray

from scripts.builtin_model.autoencoder import build_autoencoder
from scripts.builtin_model.decoder_training import draw_crops
from scripts.builtin_model.evaluation import Case, measure

SHIPPED = Path(__file__).resolve().parents[2] / "node" / "builtin" / "shapes"
LARGEST_DIRECTORY = 10_000_000  # bytes
PROMPT = "a red circle on a blue background"

pytestmark = pytest.mark.filterwarnings("ignore")


@pytest.fixture(scope="module")
def pipeline() -> Iterator[Any]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    loaded = DiffusionPipeline.from_pretrained(SHIPPED, dtype=torch.float32)
    loaded.set_progress_bar_config(disable=True)
    yield loaded
    torch.set_num_threads(before)


def _draw(pipeline: Any, prompt: str = PROMPT, **changes: Any) -> NDArray[np.uint8]:
    options = {
        "width": 256,
        "height": 256,
        "num_inference_steps": 8,
        "guidance_scale": 7.5,
        "generator": torch.Generator().manual_seed(changes.pop("seed", 1)),
    }
    pixels: NDArray[np.uint8] = np.asarray(pipeline(prompt, **options | changes).images[0])
    return pixels


def _difference(one: NDArray[np.uint8], other: NDArray[np.uint8]) -> float:
    return float(np.abs(one.astype(np.int16) - other.astype(np.int16)).mean())


def test_the_directory_is_small_and_holds_safetensors_only() -> None:
    files = [path for path in SHIPPED.rglob("*") if path.is_file()]
    assert sum(path.stat().st_size for path in files) <= LARGEST_DIRECTORY
    assert {path.suffix for path in files} <= {".json", ".txt", ".safetensors"}


def test_the_pipeline_is_made_of_stock_classes(pipeline: Any) -> None:
    names = {name: type(part).__name__ for name, part in pipeline.components.items() if part}
    assert type(pipeline).__name__ == "StableDiffusionPipeline"
    assert names["unet"] == "UNet2DConditionModel"
    assert names["vae"] == "AutoencoderTiny"
    assert names["text_encoder"] == "CLIPTextModel"
    assert names["tokenizer"] == "CLIPTokenizer"
    assert names["scheduler"] == "DPMSolverMultistepScheduler"


def test_held_out_prompts_are_followed(pipeline: Any) -> None:
    score = measure(pipeline, Case(512, 512, 20, 7.5), 20)
    assert score.both >= 0.9
    assert score.shape >= 0.8


def test_the_same_seed_gives_the_same_bytes(pipeline: Any) -> None:
    assert _draw(pipeline).tobytes() == _draw(pipeline).tobytes()


@pytest.mark.parametrize(
    "changes",
    [
        {"seed": 2},
        {"guidance_scale": 2.0},
        {"num_inference_steps": 3},
        {"negative_prompt": "blue background"},
    ],
)
def test_every_parameter_changes_the_picture(pipeline: Any, changes: dict[str, Any]) -> None:
    assert _difference(_draw(pipeline), _draw(pipeline, **changes)) > 0.2


def test_upper_case_prompts_give_the_same_picture(pipeline: Any) -> None:
    assert _draw(pipeline, PROMPT.upper()).tobytes() == _draw(pipeline).tobytes()


@pytest.mark.parametrize(("width", "height"), [(1024, 576), (576, 1024), (768, 512)])
def test_other_sizes_come_out_as_asked(pipeline: Any, width: int, height: int) -> None:
    pixels = _draw(pipeline, width=width, height=height, num_inference_steps=2)
    assert pixels.shape == (height, width, 3)


def test_the_encoder_is_exact_and_the_decoder_restores_edges(pipeline: Any) -> None:
    latents, pictures = draw_crops(6, np.random.default_rng(5))
    with torch.no_grad():
        encoded = build_autoencoder().encoder(pictures)
        restored = pipeline.vae.decode(latents).sample.clamp(-1.0, 1.0)
    assert float((encoded - latents).abs().max()) < 1e-5
    error = float((restored - pictures).square().mean())
    assert 10.0 * np.log10(4.0 / error) > 27.0
