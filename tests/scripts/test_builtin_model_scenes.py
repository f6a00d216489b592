"""Scenes, captions and the judge agree with each other on rendered ground truth."""

import numpy as np
import pytest
from PIL import Image

from scripts.builtin_model.judge import Finding, judge
from scripts.builtin_model.rendering import render, whole_picture
from scripts.builtin_model.scenes import (
    Mix,
    Scene,
    Thing,
    choose_scene,
    describe,
    lay_out,
)
from scripts.builtin_model.tokenizer import build_tokenizer
from scripts.builtin_model.vocabulary import COLOURS, POSITIONS, SHAPES, SIZES, is_held_out

HELD_OUT = [
    (shape, colour, background)
    for shape in range(len(SHAPES))
    for colour in range(len(COLOURS))
    for background in range(len(COLOURS))
    if colour != background and is_held_out(shape, colour, background)
]


def _judge_rendered(scene: Scene, width: int, height: int, seed: int) -> Finding:
    batch = lay_out([scene], width, height, np.random.default_rng(seed))
    pixels = render(batch, whole_picture(batch, 4.0))[0]
    return judge(Image.fromarray((pixels * 255.0).round().astype(np.uint8)))


@pytest.mark.parametrize(("width", "height"), [(512, 512), (1024, 576)])
def test_the_judge_recognises_rendered_truth(width: int, height: int) -> None:
    rng = np.random.default_rng(1)
    right = []
    for seed, (shape, colour, background) in enumerate(HELD_OUT[::2]):
        size, position = str(rng.choice(SIZES)), str(rng.choice(list(POSITIONS)))
        thing = Thing(shape, colour, size, position)
        found = _judge_rendered(Scene((thing,), background), width, height, seed)
        right.append(
            (
                found.background == COLOURS[background],
                found.colour == COLOURS[colour],
                found.shape == SHAPES[shape],
                found.position == position,
            )
        )
    background, colour, shape, position = np.mean(right, axis=0)
    assert background >= 0.99
    assert colour >= 0.99
    assert shape >= 0.98
    assert position >= 0.97


def test_the_judge_finds_no_shape_in_noise_or_in_an_empty_picture() -> None:
    noise = np.random.default_rng(2).integers(0, 256, (256, 256, 3)).astype(np.uint8)
    assert judge(Image.fromarray(noise)).shape is None
    assert judge(Image.new("RGB", (256, 256), (200, 30, 40))).shape is None


def test_the_judge_finds_no_shape_in_a_scribble() -> None:
    picture = np.full((256, 256, 3), 240, dtype=np.uint8)
    picture[60:200, 60:80] = picture[60:80, 60:200] = picture[180:200, 60:200] = (30, 60, 200)
    assert judge(Image.fromarray(picture)).shape is None


def test_training_never_shows_a_held_out_combination() -> None:
    rng = np.random.default_rng(3)
    mix = Mix(pairs=0.3, positioned=0.3, sized=0.3)
    for _ in range(3000):
        scene = choose_scene(rng, mix)
        assert not any(is_held_out(t.shape, t.colour, scene.background) for t in scene.things)


def test_every_pair_of_attributes_occurs_in_training() -> None:
    seen = {
        (shape, colour, background)
        for shape in range(len(SHAPES))
        for colour in range(len(COLOURS))
        for background in range(len(COLOURS))
        if colour != background and not is_held_out(shape, colour, background)
    }
    assert len({(shape, colour) for shape, colour, _ in seen}) == len(SHAPES) * len(COLOURS)
    assert len({(shape, ground) for shape, _, ground in seen}) == len(SHAPES) * len(COLOURS)
    assert 0.08 < len(HELD_OUT) / (len(HELD_OUT) + len(seen)) < 0.17


def test_captions_fit_the_tokenizer_and_name_what_they_show() -> None:
    rng = np.random.default_rng(4)
    tokenizer = build_tokenizer()
    for _ in range(500):
        mix = Mix(pairs=0.3, positioned=0.5, sized=0.5, synonyms=0.0)
        scene = choose_scene(rng, mix)
        caption = describe(scene, rng, mix)
        for thing in scene.things:
            assert f"{COLOURS[thing.colour]} {SHAPES[thing.shape]}" in caption
        assert len(tokenizer(caption).input_ids) <= tokenizer.model_max_length


def test_the_tokenizer_knows_every_byte_and_ignores_case() -> None:
    tokenizer = build_tokenizer()
    assert tokenizer("A RED Circle").input_ids == tokenizer("a red circle").input_ids
    ids = tokenizer("ein roter Kreis - 🎈").input_ids
    assert ids.count(tokenizer.eos_token_id) == 1
    assert tokenizer.eos_token_id == ids[-1]
    assert tokenizer.tokenize("hexagon") == ["hexagon</w>"]
