"""Puts another of diffusers' schedulers into a loaded pipeline, as its model's profile asks."""

import inspect
from typing import Any

import diffusers

from node.engine.families.folder import ModelFolderError
from node.engine.work import SchedulerChoice


def replace_scheduler(pipeline: Any, choice: SchedulerChoice) -> None:
    """Build the chosen scheduler from the present one's configuration and put it in its place.

    Raises ModelFolderError for a class or an option that does not exist, and for a class that
    cannot stand in for the model's own: noise schedules and flow matching do not mix.
    """
    present = pipeline.scheduler
    wanted = getattr(diffusers, choice.name, None)
    allowed = {type(present), *present.compatibles}
    if not isinstance(wanted, type) or wanted not in allowed:
        raise ModelFolderError(
            f"the scheduler {choice.name} of its profile cannot stand in for the model's own "
            f"{type(present).__name__}"
        )
    # from_config drops what it does not know without a word.
    known = inspect.signature(wanted).parameters
    if unknown := [name for name, _ in choice.options if name not in known]:
        raise ModelFolderError(f"the scheduler {choice.name} has no option {unknown[0]!r}")
    make: Any = wanted
    try:
        pipeline.scheduler = make.from_config(present.config, **dict(choice.options))
    except (ValueError, TypeError, NotImplementedError) as error:
        raise ModelFolderError(f"the scheduler {choice.name} of its profile: {error}") from error
