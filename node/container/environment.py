"""The variables that Livepeer's ai-runner is started with, so that its image can be swapped. Pure."""

from collections.abc import Mapping, Sequence
from typing import Final

from pydantic import ValidationError

from network.capabilities import TEXT_TO_IMAGE_PIPELINE
from network.errors import ConfigError
from node.config.settings import ENVIRONMENT_PREFIX, ModelSettings, NodeSettings

#: Its variables, and the settings they are. HOST and PORT are left out: shells set them as well.
_TAKEN: Final = {
    "AUTH_TOKEN": "CONTAINER__TOKEN",
    "MODEL_DIR": "MODELS_DIR",
    "VERSION": "CONTAINER__VERSION",
}
_PIPELINE: Final = "PIPELINE"
_MODEL: Final = "MODEL_ID"


def runner_environment(environment: Mapping[str, str]) -> dict[str, str]:
    """Return the environment with the ai-runner's variables as settings; our own win.

    An empty variable is none. Raises ConfigError for another pipeline than text-to-image.
    """
    pipeline = environment.get(_PIPELINE) or TEXT_TO_IMAGE_PIPELINE
    if pipeline != TEXT_TO_IMAGE_PIPELINE:
        raise ConfigError(
            _PIPELINE, f"is {pipeline[:80]!r}, and this runner has {TEXT_TO_IMAGE_PIPELINE} only"
        )
    taken = {
        f"{ENVIRONMENT_PREFIX}{ours}": environment[theirs]
        for theirs, ours in _TAKEN.items()
        if environment.get(theirs)
    }
    return {**taken, **environment}


def with_models(
    settings: NodeSettings, named: Sequence[str], environment: Mapping[str, str]
) -> NodeSettings:
    """Return the settings with just the models that flags, or else MODEL_ID, name.

    Where neither names any they are those of the settings. A model named keeps its entry there,
    with its path, capacity and profile. Raises ConfigError for what is no id.
    """
    wanted = tuple(dict.fromkeys(named or filter(None, [environment.get(_MODEL)])))
    if not wanted:
        return settings
    listed = {model.id: model for model in settings.models}
    models = tuple(listed.get(name) or _model(name) for name in wanted)
    return settings.model_copy(update={"models": models, "ai_models": None})


def _model(name: str) -> ModelSettings:
    try:
        return ModelSettings(id=name)
    except ValidationError:
        raise ConfigError("models.id", f"{name[:80]!r} is not a model id") from None
