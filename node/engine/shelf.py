"""The models in the worker's memory: loaded when asked for, least recently used out first."""

from collections.abc import Callable, Collection, Sequence
from dataclasses import replace

from network.units import ModelId
from node.engine.canary import Canary
from node.engine.families.base import Family
from node.engine.families.folder import ModelFolderError
from node.engine.protocol import Model
from node.engine.work import ModelState

#: Opens a model; the second argument is where to report the loaded share.
Opener = Callable[[Model, Callable[[float], None]], Family]

_RETRY_AFTER = 30.0  # seconds before a model that failed to load is tried again
_PACE_WEIGHT = 0.2  # of the newest image in the running mean


class ModelUnavailableError(Exception):
    """The model cannot be had now. The message is for the operator."""


class Shelf:
    """Belongs to the step loop's thread. `report` is told each change of a model's state."""

    def __init__(
        self,
        models: Sequence[Model],
        open_model: Opener,
        *,
        max_models: int,
        longest_load: float,
        report: Callable[[ModelState], None],
        canary: Canary,
        monotonic: Callable[[], float],
        relieve: Callable[[], None],
    ) -> None:
        self._models = {ModelId(model.model_id): model for model in models}
        self._open_model = open_model
        self._max_models = max_models
        self._longest_load = longest_load
        self._report = report
        self._canary = canary
        self._monotonic = monotonic
        self._relieve = relieve
        self._families: dict[ModelId, Family] = {}  # least recently used first
        self._failed_at: dict[ModelId, float] = {}
        self._states = {
            model_id: ModelState(model_id, "loading" if model.warm else "cold")
            for model_id, model in self._models.items()
        }

    def cold_warm_models(self) -> list[ModelId]:
        """Return the models that should be in memory from the start and are not yet."""
        return [
            model_id
            for model_id, model in self._models.items()
            if model.warm and model_id not in self._families and model_id not in self._failed_at
        ]

    def get(self, model_id: ModelId, in_use: Collection[ModelId] = ()) -> Family:
        """Return a loaded model, loading it if need be. Raises ModelUnavailableError.

        Models `in_use` stay, whatever the limit says.
        """
        model = self._models.get(model_id)
        if model is None:
            raise ModelUnavailableError(f"model {model_id} is not configured")
        family = self._families.pop(model_id, None)
        if family is None:
            self._refuse_if_just_failed(model_id)
            self._make_room(in_use)
            family = self._load(model_id, model)
        self._families[model_id] = family
        return family

    def note_pace(self, model_id: ModelId, seconds_per_pixel_step: float) -> None:
        """Take one finished image into the model's measured pace."""
        known = self._states[model_id].pace
        pace = seconds_per_pixel_step
        if known is not None:
            pace = known + _PACE_WEIGHT * (seconds_per_pixel_step - known)
        self._change(replace(self._states[model_id], pace=pace))

    def pace(self, model_id: ModelId) -> float | None:
        """Return seconds per pixel and step, None until measured."""
        return self._states[model_id].pace

    def _refuse_if_just_failed(self, model_id: ModelId) -> None:
        failed_at = self._failed_at.get(model_id)
        if failed_at is not None and self._monotonic() - failed_at < _RETRY_AFTER:
            raise ModelUnavailableError(
                f"model {model_id} cannot be loaded: {self._states[model_id].detail}"
            )

    def _make_room(self, in_use: Collection[ModelId]) -> None:
        for model_id in tuple(self._families):
            if len(self._families) < self._max_models:
                return
            if self._models[model_id].warm or model_id in in_use:
                continue
            del self._families[model_id]
            self._relieve()
            self._change(replace(self._states[model_id], status="cold", progress=0.0))

    def _load(self, model_id: ModelId, model: Model) -> Family:
        state = replace(self._states[model_id], status="loading", progress=0.0, detail="")
        self._change(state)
        self._canary.note("steps", "loading", self._longest_load)
        began = self._monotonic()
        try:
            family = self._open_model(
                model, lambda share: self._change(replace(state, progress=share))
            )
        except ModelFolderError as error:
            self._failed_at[model_id] = self._monotonic()
            self._change(replace(state, status="failed", detail=str(error)))
            raise ModelUnavailableError(f"model {model_id} cannot be loaded: {error}") from error
        finally:
            self._canary.rest("steps")
        self._failed_at.pop(model_id, None)
        self._change(
            replace(
                state,
                status="ready",
                progress=1.0,
                facts=family.facts,
                load_seconds=self._monotonic() - began,
            )
        )
        return family

    def _change(self, state: ModelState) -> None:
        self._states[state.model_id] = state
        self._report(state)
