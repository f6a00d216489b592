"""What the engine knows of its models, over the lives of its workers. Pure."""

from collections.abc import Sequence
from dataclasses import replace

from network.units import ModelId
from node.engine.protocol import Model
from node.engine.work import ModelSpec, ModelState


class Models:
    """Every configured model's state, as the present worker tells it or the last one left it."""

    def __init__(self, specs: Sequence[ModelSpec], *, attempts: int, forget_after: float) -> None:
        """A model is not loaded again after `attempts` workers in a row died loading it.

        A size that did not fit into memory is offered again `forget_after` seconds later.
        """
        self._specs = {spec.model_id: spec for spec in specs}
        self._attempts = attempts
        self._forget_after = forget_after
        self._states = {model_id: _first_state(spec) for model_id, spec in self._specs.items()}
        #: those that the present worker has begun to read, and how many died at that in a row
        self._begun: set[ModelId] = set()
        self._died_loading: dict[ModelId, int] = {}
        self._refused_since: dict[ModelId, float] = {}

    def all(self) -> tuple[ModelState, ...]:
        """Return every state, in the configured order."""
        return tuple(self._states.values())

    def get(self, model_id: ModelId) -> ModelState | None:
        """Return one model's state; None when it is not configured."""
        return self._states.get(model_id)

    def for_worker(self) -> tuple[Model, ...]:
        """Return what a new worker has to know. What is broken for it, the next one may try."""
        models = []
        for model_id, spec in self._specs.items():
            reason = ""
            if self._died_loading.get(model_id, 0) >= self._attempts:
                reason = f"{self._attempts} worker processes died while they loaded it"
                del self._died_loading[model_id]
            models.append(Model.of(spec, self._states[model_id], reason))
        return tuple(models)

    def take(self, state: ModelState, now: float) -> bool:
        """Take what the worker says of a model; tell whether its status is another one now."""
        known = self._states.get(state.model_id)
        if known is None:
            return False
        if state.status == "ready":
            self._died_loading.pop(state.model_id, None)
        if state.status == "loading" and state.progress > 0:
            self._begun.add(state.model_id)
        else:
            self._begun.discard(state.model_id)
        if state.refused_pixels is None:
            self._refused_since.pop(state.model_id, None)
        else:
            self._refused_since.setdefault(state.model_id, now)
        # A new worker has measured nothing yet; what the last one knew is better than nothing.
        self._states[state.model_id] = replace(
            state,
            facts=state.facts or known.facts,
            load_seconds=state.load_seconds or known.load_seconds,
            pace=state.pace or known.pace,
        )
        return state.status != known.status

    def forget_refused_sizes(self, now: float) -> bool:
        """Offer again what did not fit; tell whether there was something.

        The worker cannot find out that there is memory again: no job for such a size reaches it.
        """
        over = [m for m, since in self._refused_since.items() if now - since > self._forget_after]
        for model_id in over:
            del self._refused_since[model_id]
            self._states[model_id] = replace(self._states[model_id], refused_pixels=None)
        return bool(over)

    def worker_lost(self) -> None:
        """Say that nothing is in memory now, and who may be to blame."""
        for model_id in self._begun:
            self._died_loading[model_id] = self._died_loading.get(model_id, 0) + 1
        self._begun.clear()
        self._refused_since.clear()
        for model_id, spec in self._specs.items():
            self._states[model_id] = replace(
                self._states[model_id],
                status=_first_state(spec).status,
                progress=0.0,
                detail="the worker process is being replaced",
                in_host=False,
                refused_pixels=None,
            )


def _first_state(spec: ModelSpec) -> ModelState:
    return ModelState(spec.model_id, "loading" if spec.warm else "cold")
