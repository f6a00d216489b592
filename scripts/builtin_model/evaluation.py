"""Scores the model on combinations of shape, colour and background it was never trained on."""

import time
from dataclasses import dataclass

import numpy as np
import torch
from diffusers import StableDiffusionPipeline
from PIL import Image

from scripts.builtin_model.judge import Finding, judge
from scripts.builtin_model.scenes import with_article
from scripts.builtin_model.vocabulary import COLOURS, SHAPES, is_held_out

BATCH = 4
#: Sentence patterns of the held-out prompts; the article goes with the first colour.
PATTERNS = ("{thing} on {ground} background", "{noun}, {colour} background")


@dataclass(frozen=True)
class Case:
    """The request that a row of the table measures."""

    width: int
    height: int
    steps: int
    guidance: float


@dataclass(frozen=True)
class Score:
    """Shares of pictures in 0..1; `both` counts those with object and background colour right."""

    count: int
    background: float
    colour: float
    both: float
    shape: float
    everything: float
    seconds: float


@dataclass(frozen=True)
class Question:
    """A prompt and what its picture must show."""

    prompt: str
    shape: str
    colour: str
    background: str


CASES = (
    Case(512, 512, 20, 7.5),
    Case(1024, 576, 50, 7.5),
    Case(512, 512, 20, 3.0),
    Case(1024, 576, 50, 3.0),
)


def held_out_questions(count: int) -> list[Question]:
    """Choose prompts evenly over the shapes and, within a shape, over its held-out pairs."""
    rng = np.random.default_rng(2024)
    pairs = {
        shape: rng.permutation(
            [
                (colour, background)
                for colour in range(len(COLOURS))
                for background in range(len(COLOURS))
                if colour != background and is_held_out(shape, colour, background)
            ]
        )
        for shape in range(len(SHAPES))
    }
    questions = []
    for number in range(count):
        shape, turn = number % len(SHAPES), number // len(SHAPES)
        colour, background = pairs[shape][turn % len(pairs[shape])]
        questions.append(_ask(SHAPES[shape], COLOURS[colour], COLOURS[background], turn))
    return questions


def _ask(shape: str, colour: str, background: str, turn: int) -> Question:
    noun = f"{colour} {shape}"
    prompt = PATTERNS[turn % len(PATTERNS)].format(
        thing=with_article(noun), noun=noun, colour=background, ground=with_article(background)
    )
    return Question(prompt, shape, colour, background)


def measure(pipeline: StableDiffusionPipeline, case: Case, count: int) -> Score:
    """Generate `count` pictures, picture i with seed i, and judge each one."""
    questions = held_out_questions(count)
    findings: list[Finding] = []
    seconds = 0.0
    for begin in range(0, count, BATCH):
        began = time.perf_counter()
        pictures = draw(
            pipeline, case, [q.prompt for q in questions[begin : begin + BATCH]], begin
        )
        seconds += time.perf_counter() - began
        findings.extend(judge(picture) for picture in pictures)
    return score(questions, findings, seconds / count)


def draw(
    pipeline: StableDiffusionPipeline, case: Case, prompts: list[str], first_seed: int
) -> list[Image.Image]:
    """Generate one picture for each prompt, with consecutive seeds."""
    generators = [torch.Generator().manual_seed(first_seed + i) for i in range(len(prompts))]
    pictures: list[Image.Image] = pipeline(
        prompts,
        width=case.width,
        height=case.height,
        num_inference_steps=case.steps,
        guidance_scale=case.guidance,
        generator=generators,
    ).images
    return pictures


def score(questions: list[Question], findings: list[Finding], seconds: float) -> Score:
    """Compare what was asked with what was found."""
    rows = np.array(
        [
            (f.background == q.background, f.colour == q.colour, f.shape == q.shape)
            for q, f in zip(questions, findings, strict=True)
        ]
    )
    return Score(
        count=len(rows),
        background=float(rows[:, 0].mean()),
        colour=float(rows[:, 1].mean()),
        both=float(rows[:, :2].all(axis=1).mean()),
        shape=float(rows[:, 2].mean()),
        everything=float(rows.all(axis=1).mean()),
        seconds=round(seconds, 3),
    )
