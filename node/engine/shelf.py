"""The models in the worker's memory: carries out what `residency` decides.

Reading a model from disk is the loader's thread's; bringing weights to the device and off it is
the step loop's, between two steps, so that no other model's steps wait for more than a transfer.
"""

from collections.abc import Callable, Collection, Sequence
from dataclasses import replace
from typing import cast

from network.units import ModelId
from node.engine.canary import Canary
from node.engine.families.base import Family
from node.engine.families.folder import ModelFolderError
from node.engine.faults import is_out_of_memory, is_poison
from node.engine.ladder import Ladder, Rung
from node.engine.loader import Loaded, LoadedModel, Loader, Opener
from node.engine.protocol import Model
from node.engine.residency import Budget, Move, Residency, Tier
from node.engine.thrift import ThriftyFamily
from node.engine.work import ModelState

_RETRY_AFTER = 30.0  # seconds before a model that failed to load is tried again
_PACE_WEIGHT = 0.2  # of the newest image in the running mean

#: Returns the bytes that a model's weights will take. Raises ModelFolderError.
Estimator = Callable[[Model], int]


class ModelUnavailableError(Exception):
    """The model cannot be had now. The message is for the operator."""


class Shelf:
    """Belongs to the step loop's thread. `report` is told each change of a model's state."""

    def __init__(
        self,
        models: Sequence[Model],
        *,
        budget: Budget,
        open_model: Opener,
        estimate: Estimator,
        rungs: Collection[Rung],
        forget_after: float,
        longest_load: float,
        longest_move: float,
        deliver: Callable[[Loaded], None],
        report: Callable[[ModelState], None],
        canary: Canary,
        monotonic: Callable[[], float],
        relieve: Callable[[], None],
        arrived: Callable[[ModelId, Family], None] = lambda _model_id, _family: None,
    ) -> None:
        """`rungs` are what the device can do when memory runs out.

        `arrived` gets each model that was brought to the device, the same family each time.
        What is given to `deliver`, by another thread, has to come back by `take`.
        """
        self._models = {ModelId(model.model_id): model for model in models}
        warm = [model_id for model_id, model in self._models.items() if model.warm]
        self._residency = Residency(budget, warm)
        self._loader = Loader(
            open_model,
            deliver=deliver,
            progressed=self._show_progress,
            canary=canary,
            monotonic=monotonic,
            longest=longest_load,
        )
        self._estimate = estimate
        self._rungs = frozenset(rungs)
        self._forget_after = forget_after
        self._longest_move = longest_move
        self._report = report
        self._canary = canary
        self._monotonic = monotonic
        self._relieve = relieve
        self._arrived = arrived
        self._loading: set[ModelId] = set()
        self._loaded: dict[ModelId, LoadedModel] = {}  # on the device or in host memory
        self._thrifty: dict[ModelId, ThriftyFamily] = {}  # made of those
        self._families: dict[ModelId, Family] = {}  # on the device
        self._failed_at: dict[ModelId, float] = {}
        self._ladders: dict[ModelId, Ladder] = {}
        self._in_use: set[ModelId] = set()
        self._barred: frozenset[ModelId] = frozenset()
        self._states = {
            model_id: ModelState(
                model_id,
                "failed" if model.broken else "loading" if model.warm else "cold",
                detail=model.broken,
                load_seconds=model.load_seconds,
                pace=model.pace,
            )
            for model_id, model in self._models.items()
        }

    def load_warm(self) -> None:
        """Begin to load the models that should be in memory from the start and are not yet."""
        for model_id, model in self._models.items():
            if model.broken:
                self._change(self._states[model_id])
            elif model.warm and self._is_absent(model_id):
                try:
                    began = self._begin_loading(model_id, urgent=False)
                except ModelUnavailableError:
                    continue  # its state says why, and so will every job that asks for it
                if not began:
                    self._change(replace(self._states[model_id], status="cold"))

    def begin_round(self, in_use: Collection[ModelId]) -> None:
        """Tell which models have samples under way, before jobs ask in the order they came."""
        self._in_use = set(in_use)
        self._barred = frozenset()
        self._carry_out(self._residency.shrink(self._in_use | self._loading))

    def ask(self, model_id: ModelId) -> Family | None:
        """Return a model that is on the device, in use from now on; None: its job has to wait.

        Ask again in a later round. A job that waits until models in use are free keeps those
        from whoever asks after it in the same round: otherwise a steady stream of jobs for one
        model would starve another. Raises ModelUnavailableError.
        """
        if model_id not in self._models:
            raise ModelUnavailableError(f"model {model_id} is not configured")
        if model_id in self._loading:
            self._loader.hurry(model_id)
            return None
        if model_id in self._barred:
            return None
        if self._residency.tier(model_id) is Tier.DISK:
            self._refuse_if_failed(model_id)
            self._begin_loading(model_id, urgent=True)
            return None
        if model_id not in self._families and not self._promote(model_id):
            return None
        self._residency.touch(model_id)
        self._in_use.add(model_id)
        return self._families[model_id]

    def take(self, loaded: Loaded) -> None:
        """Take what the loader delivers, and bring it to the device."""
        model_id = loaded.model_id
        self._loading.discard(model_id)
        if loaded.model is None:
            self._residency.drop(model_id)
            self._fail(model_id, loaded.error or ModelFolderError("nothing was loaded"))
            return
        self._loaded[model_id] = loaded.model
        self._residency.resize(model_id, loaded.model.size)
        self._carry_out(self._residency.shrink(self._in_use | self._loading | {model_id}))
        self._attach(model_id, loaded.seconds)

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

    def _is_absent(self, model_id: ModelId) -> bool:
        return (
            self._residency.tier(model_id) is Tier.DISK
            and model_id not in self._loading
            and model_id not in self._failed_at
        )

    def _refuse_if_failed(self, model_id: ModelId) -> None:
        failed_at = self._failed_at.get(model_id, float("-inf"))
        if self._models[model_id].broken or self._monotonic() - failed_at < _RETRY_AFTER:
            raise ModelUnavailableError(
                f"model {model_id} cannot be loaded: {self._states[model_id].detail}"
            )

    def _begin_loading(self, model_id: ModelId, *, urgent: bool) -> bool:
        """Make room and have the model read; False if models in use are in its way."""
        model = self._models[model_id]
        try:
            size = self._estimate(model)
        except ModelFolderError as error:
            self._fail(model_id, error)
            raise ModelUnavailableError(f"model {model_id} cannot be loaded: {error}") from None
        if not self._make_room(model_id, size):
            return False
        state = self._states[model_id]
        self._change(replace(state, status="loading", progress=0.0, detail=""))
        self._loading.add(model_id)
        self._loader.ask(model, urgent=urgent)
        return True

    def _promote(self, model_id: ModelId) -> bool:
        """Bring a model from host memory to the device; False if it has to wait for room."""
        if not self._make_room(model_id, self._loaded[model_id].size):
            return False
        self._attach(model_id, None)
        if model_id not in self._families:
            raise ModelUnavailableError(
                f"model {model_id} cannot be brought to the device: "
                f"{self._states[model_id].detail}"
            )
        return True

    def _make_room(self, model_id: ModelId, size: int) -> bool:
        moves = self._residency.place(model_id, size, self._in_use | self._loading)
        if moves is None:
            self._barred |= self._residency.in_the_way(size)
            return False
        self._carry_out(moves)
        return True

    def _attach(self, model_id: ModelId, load_seconds: float | None) -> None:
        """Bring a model's weights to the device; `load_seconds` if they were just read."""
        model = self._loaded[model_id]
        began = self._monotonic()
        try:
            with self._canary.at("steps", "moving a model", self._longest_move):
                family = self._attached(model_id, model)
        except Exception as error:
            if is_poison(error):
                raise
            del self._loaded[model_id]
            self._thrifty.pop(model_id, None)
            self._residency.drop(model_id)
            self._fail(model_id, error)
            return
        moved = self._monotonic() - began
        if model_id not in self._thrifty:
            self._thrifty[model_id] = self._made_thrifty(model_id, model, family)
        self._thrifty[model_id].returned()
        # What the class does not define, it takes from the family that it wraps.
        self._families[model_id] = cast("Family", self._thrifty[model_id])
        self._arrived(model_id, self._families[model_id])
        self._failed_at.pop(model_id, None)
        state = self._states[model_id]
        self._change(
            replace(
                state,
                status="ready",
                progress=1.0,
                detail="",
                facts=family.facts,
                bytes=model.size,
                load_seconds=state.load_seconds if load_seconds is None else load_seconds + moved,
                swap_seconds=moved if load_seconds is None else state.swap_seconds,
                in_host=False,
            )
        )

    def _made_thrifty(
        self, model_id: ModelId, model: LoadedModel, family: Family
    ) -> ThriftyFamily:
        if model_id not in self._ladders:
            rungs = _rungs_of(model, family) & self._rungs
            self._ladders[model_id] = Ladder(rungs, self._forget_after)
        return ThriftyFamily(
            family,
            model,
            self._ladders[model_id],
            monotonic=self._monotonic,
            relieve=self._relieve,
            spare=lambda: self._spare(model_id),
            changed=lambda: self._change(self._states[model_id]),
        )

    def _attached(self, model_id: ModelId, model: LoadedModel) -> Family:
        try:
            return model.attach()
        except Exception as error:
            if not is_out_of_memory(error):
                raise
        model.detach()
        self._spare(model_id)
        return model.attach()

    def _spare(self, model_id: ModelId) -> None:
        """Free what can be freed for a model whose work lacks memory."""
        self._carry_out(self._residency.spare(model_id, self._in_use | self._loading))
        self._relieve()

    def _carry_out(self, moves: Sequence[Move]) -> None:
        for move in moves:
            self._families.pop(move.model_id, None)
            if move.to is Tier.HOST:
                self._demote(move.model_id)
            else:
                self._drop(move.model_id)
        if moves:
            self._relieve()

    def _demote(self, model_id: ModelId) -> None:
        began = self._monotonic()
        try:
            with self._canary.at("steps", "moving a model", self._longest_move):
                self._loaded[model_id].detach()
        except Exception as error:
            if not is_out_of_memory(error):
                raise
            self._residency.drop(model_id)
            self._drop(model_id)
            return
        state = replace(self._states[model_id], status="cold", progress=0.0, in_host=True)
        if state.swap_seconds is None:
            state = replace(state, swap_seconds=self._monotonic() - began)
        self._change(state)

    def _drop(self, model_id: ModelId) -> None:
        self._loaded.pop(model_id, None)
        self._thrifty.pop(model_id, None)
        state = self._states[model_id]
        self._change(replace(state, status="cold", progress=0.0, in_host=False))

    def _fail(self, model_id: ModelId, error: Exception) -> None:
        self._failed_at[model_id] = self._monotonic()
        state = replace(self._states[model_id], progress=0.0, in_host=False)
        if is_out_of_memory(error):
            # What else takes the memory may be gone soon: the model is no worse for it.
            self._change(replace(state, status="cold", detail="there was no memory for it"))
        else:
            self._change(replace(state, status="failed", detail=str(error)))

    def _show_progress(self, model_id: ModelId, share: float) -> None:
        """Called by the loader's thread, which is why nothing is kept of it."""
        self._report(replace(self._states[model_id], progress=share))

    def _change(self, state: ModelState) -> None:
        ladder = self._ladders.get(state.model_id)
        if ladder is not None:
            state = replace(state, refused_pixels=ladder.refused_pixels(self._monotonic()))
        self._states[state.model_id] = state
        self._report(state)


def _rungs_of(model: LoadedModel, family: Family) -> set[Rung]:
    rungs = {Rung.TILED} if model.can_tile() else set()
    # A pipeline that runs whole expects all of its parts to be where it left them.
    return rungs if family.alone else rungs | {Rung.OFFLOADED}
