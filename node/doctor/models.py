"""Whether the models that are to be served are there, whole, and fit into memory."""

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from network.errors import ConfigError
from network.findings import Finding, fail, ok, warn
from node.config.catalogue import Catalogue, catalogue
from node.config.settings import NodeSettings
from node.engine.checkers.presence import why_missing
from node.engine.configured import safety_options
from node.engine.options import NO_CHECKER

_GIB: Final = 2**30

#: From a model's folder to the bytes of its weights and what is wrong with its files; reads the disk.
Inspect = Callable[[Path], tuple[int, Sequence[str]]]


@dataclass(frozen=True, slots=True)
class ModelFacts:
    """One model as it is on disk; `size` in bytes of weights."""

    model_id: str
    path: Path
    size: int
    warm: bool
    problems: tuple[str, ...] = ()


def look_at_models(
    settings: NodeSettings, inspect: Inspect, memory: int, where: str
) -> tuple[Finding, ...]:
    """Inspect every configured model; `memory` in bytes of `where`. Blocks."""
    try:
        found = catalogue(settings)
    except ConfigError as error:
        return (fail("models", str(error), "limner-node models pull, or correct the setting"),)
    facts = gather(found, inspect)
    judged = tuple(judge_model(one) for one in facts)
    return (*judged, judge_memory(facts, memory, where), _loras(found))


def gather(found: Catalogue, inspect: Inspect) -> tuple[ModelFacts, ...]:
    """Inspect each model of a catalogue. Blocks."""
    facts: list[ModelFacts] = []
    for model in found.models:
        size, problems = inspect(model.path)
        facts.append(ModelFacts(model.model_id, model.path, size, model.warm, tuple(problems)))
    return tuple(facts)


def judge_model(facts: ModelFacts) -> Finding:
    """Say whether the model's files can be loaded."""
    if facts.problems:
        more = f" (and {len(facts.problems) - 1} more)" if len(facts.problems) > 1 else ""
        return fail(
            facts.model_id,
            f"{facts.path}: {facts.problems[0]}{more}",
            f"limner-node models verify {facts.model_id}; then pull it again",
        )
    kept = "warm" if facts.warm else "loaded at its first job"
    return ok(facts.model_id, f"{facts.size / _GIB:.2f} GiB of weights, {kept}")


def judge_memory(facts: Sequence[ModelFacts], memory: int, where: str) -> Finding:
    """Hold the weights that are to be in memory at once against what there is; 0 is not known."""
    what = "memory for models"
    warm = [one for one in facts if one.warm]
    needed = sum(one.size for one in warm)
    largest = max((one.size for one in facts), default=0)
    detail = f"{needed / _GIB:.2f} GiB warm, {memory / _GIB:.1f} GiB of {where}"
    if memory and largest > memory:
        return warn(
            what,
            f"the largest model has {largest / _GIB:.1f} GiB of weights; {detail}",
            "it runs offloaded, which is slow, or not at all: take a smaller one or another dtype",
        )
    if memory and needed > memory:
        return warn(what, detail, "set warm = false for some: they take turns otherwise")
    return ok(what, detail)


def judge_safety(settings: NodeSettings) -> Finding:
    """Say whether finished images can be checked. Reads the disk."""
    what = "safety checker"
    missing = why_missing(safety_options(settings.safety))
    if missing:
        return fail(what, missing, "correct safety.checker")
    if settings.safety.checker == NO_CHECKER:
        return warn(what, "none: images are delivered unchecked", "set safety.checker")
    return ok(what, settings.safety.checker)


def host_memory() -> int:
    """Return the machine's memory in bytes."""
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def _loras(found: Catalogue) -> Finding:
    return ok("LoRAs", f"{len(found.loras)} may be named")
