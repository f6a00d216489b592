"""What the built-in model's LoRAs are taught, and that training gives the same file again."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from scripts.builtin_model.adapters import STYLES, AdapterTrainer
from scripts.builtin_model.rendering import SceneBatch, render, whole_picture
from scripts.builtin_model.scenes import Scene, Thing, lay_out
from scripts.builtin_model.vocabulary import COLOURS, SHAPES

SHIPPED = Path(__file__).resolve().parents[2] / "node" / "builtin" / "shapes"
NIGHT, OUTLINES = STYLES

pytestmark = pytest.mark.filterwarnings("ignore")


@pytest.fixture
def one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def _scene() -> SceneBatch:
    red_square = Thing(SHAPES.index("square"), COLOURS.index("red"))
    scene = Scene((red_square,), COLOURS.index("white"))
    return lay_out([scene], 256, 256, np.random.default_rng(1))


def test_night_darkens_the_background_and_leaves_the_object() -> None:
    day, night = _scene(), NIGHT.redraw(_scene())
    before, after = (render(one, whole_picture(one, 8.0))[0] for one in (day, night))
    assert before[0, 0].mean() > 0.85
    assert after[0, 0].mean() < 0.2
    assert np.allclose(after[16, 16], before[16, 16], atol=0.02)


def test_outlines_show_the_background_within_and_the_colour_at_the_edge() -> None:
    filled, drawn = _scene(), OUTLINES.redraw(_scene())
    before, after = (render(one, whole_picture(one, 2.0))[0] for one in (filled, drawn))
    centre = 64
    edge = centre + int(0.8 * drawn.radius[0, 0] / 2)
    assert before[centre, centre, 1] < 0.4
    assert after[centre, centre, 1] > 0.7
    assert np.allclose(after[centre, edge], before[centre, edge], atol=0.15)
    assert after[centre, edge, 1] < 0.4


@pytest.mark.usefixtures("one_thread")
def test_training_is_a_function_of_the_seed(tmp_path: Path) -> None:
    files = []
    for number, seed in enumerate((7, 7, 8)):
        trainer = AdapterTrainer(SHIPPED, replace(NIGHT, steps=1), seed)
        trainer.run()
        files.append(trainer.save(tmp_path / str(number)).read_bytes())
    assert files[0] == files[1]
    assert files[0] != files[2]
