"""Decides which samples take the next denoise step together. Pure: no torch, no clock.

A sample is one image on its way. Jobs take turns, one group of samples a turn, so that a short
job is never stuck behind a long one. Within a job the first image goes first: it can be decoded
while the next one is denoised.
"""

from collections.abc import Hashable, Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Runnable:
    """A sample that wants a step.

    `sample` numbers grow with admission. Samples may share a forward pass when their `key`
    (model, latent shape, guidance on or off ...) is equal and neither is `alone`. `last_turn` is
    the number of the turn in which the sample's job last took a step, -1 before its first.
    """

    sample: int
    job: int
    key: Hashable
    alone: bool
    last_turn: int


@dataclass(frozen=True, slots=True)
class Group:
    """The samples that step together; the first one is whose turn it is."""

    samples: tuple[int, ...]


def plan(runnable: Sequence[Runnable], cap: int = 1) -> Group | None:
    """Return the next group of at most `cap` samples; None when nothing wants a step."""
    if not runnable:
        return None
    order = sorted(runnable, key=lambda one: (one.last_turn, one.job, one.sample))
    lead = order[0]
    if lead.alone or cap <= 1:
        return Group((lead.sample,))
    company = [one.sample for one in order if one.key == lead.key and not one.alone]
    return Group(tuple(company[:cap]))
