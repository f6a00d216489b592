"""Scores what the table leaves out: positions, sizes, and pictures with two objects."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
from diffusers import StableDiffusionPipeline
from PIL import Image

from scripts.builtin_model.evaluation import BATCH, Case, Question, draw, held_out_questions
from scripts.builtin_model.judge import Finding, judge
from scripts.builtin_model.scenes import RADII, with_article
from scripts.builtin_model.vocabulary import POSITIONS, SIZES

SQUARE, WIDE = Case(512, 512, 20, 7.5), Case(1024, 576, 20, 7.5)
Verdict = TypeVar("Verdict")
PLACES = [name for name in POSITIONS if name != "center"]


@dataclass(frozen=True)
class Details:
    """Shares of right pictures in 0..1; pairs count only if both objects are right."""

    count: int
    position: float
    position_shape: float
    size: float
    size_shape: float
    pair_colours: float
    pair_shapes: float


def measure_details(pipeline: StableDiffusionPipeline, count: int) -> Details:
    """Draw held-out objects in a named place, in a named size, and beside another object."""
    questions = held_out_questions(count)
    places = [PLACES[(3 * number) % len(PLACES)] for number in range(count)]
    sizes = [SIZES[number % len(SIZES)] for number in range(count)]
    others = [_choose_other(number, questions) for number in range(count)]
    placed = _judge_all(pipeline, WIDE, list(map(_say_place, questions, places)), judge)
    sized = _judge_all(pipeline, SQUARE, list(map(_say_size, questions, sizes)), judge)
    pairs = _judge_all(pipeline, WIDE, list(map(_say_pair, questions, others)), _judge_halves)
    asked = list(zip(questions, others, strict=True))
    return Details(
        count=count,
        position=_share([found.position for found in placed], places),
        position_shape=_share([found.shape for found in placed], [q.shape for q in questions]),
        size=_share([_name_size(found) for found in sized], sizes),
        size_shape=_share([found.shape for found in sized], [q.shape for q in questions]),
        pair_colours=_share(
            [(left.colour, right.colour) for left, right in pairs],
            [(left.colour, right.colour) for left, right in asked],
        ),
        pair_shapes=_share(
            [(left.shape, right.shape) for left, right in pairs],
            [(left.shape, right.shape) for left, right in asked],
        ),
    )


def _judge_all(
    pipeline: StableDiffusionPipeline,
    case: Case,
    prompts: list[str],
    verdict: Callable[[Image.Image], Verdict],
) -> list[Verdict]:
    verdicts: list[Verdict] = []
    for begin in range(0, len(prompts), BATCH):
        pictures = draw(pipeline, case, prompts[begin : begin + BATCH], begin)
        verdicts.extend(verdict(picture) for picture in pictures)
    return verdicts


def _judge_halves(picture: Image.Image) -> tuple[Finding, Finding]:
    middle = picture.width // 2
    left = picture.crop((0, 0, middle, picture.height))
    right = picture.crop((middle, 0, picture.width, picture.height))
    return judge(left), judge(right)


def _choose_other(number: int, questions: list[Question]) -> Question:
    """Return the next question whose object differs from this one's and from its background."""
    asked = questions[number]
    for step in range(1, len(questions)):
        other = questions[(number + step) % len(questions)]
        if other.colour not in (asked.colour, asked.background) and other.shape != asked.shape:
            return other
    return asked


def _say_place(question: Question, place: str) -> str:
    thing = with_article(f"{question.colour} {question.shape}")
    where = f"in the {place} corner" if " " in place else f"on the {place}"
    return f"{thing} {where} on {with_article(question.background)} background"


def _say_size(question: Question, size: str) -> str:
    thing = with_article(f"{size} {question.colour} {question.shape}")
    return f"{thing} on {with_article(question.background)} background"


def _say_pair(question: Question, other: Question) -> str:
    first = with_article(f"{question.colour} {question.shape}")
    second = with_article(f"{other.colour} {other.shape}")
    return f"{first} and {second} on {with_article(question.background)} background"


def _name_size(found: Finding) -> str:
    if found.radius == 0.0:
        return "none"
    return min(SIZES, key=lambda size: abs(float(np.log(found.radius / RADII[size][0]))))


def _share(found: Sequence[object], asked: Sequence[object]) -> float:
    return float(np.mean([one == other for one, other in zip(found, asked, strict=True)]))
