"""What is known of models over the lives of several workers."""

from dataclasses import replace
from pathlib import Path

from network.units import ModelId
from node.engine.models import Models
from node.engine.work import ModelFacts, ModelSpec, ModelState

_WARM, _COLD = ModelId("warm"), ModelId("cold")
_READY = ModelState(_WARM, "ready", 1.0, facts=ModelFacts(), load_seconds=3.0, pace=1e-6)


def _models() -> Models:
    specs = [ModelSpec(_WARM, Path("/warm")), ModelSpec(_COLD, Path("/cold"), warm=False)]
    return Models(specs, attempts=3, forget_after=60.0)


def _die_loading(models: Models) -> None:
    models.take(ModelState(_WARM, "loading", 0.4), 0.0)
    models.worker_lost()


def _broken(models: Models) -> dict[str, bool]:
    return {model.model_id: bool(model.broken) for model in models.for_worker()}


def test_at_first_warm_models_are_loading_and_others_cold() -> None:
    models = _models()
    assert [(state.model_id, state.status) for state in models.all()] == [
        (_WARM, "loading"),
        (_COLD, "cold"),
    ]
    assert models.get(ModelId("x")) is None
    assert not models.take(ModelState(ModelId("x"), "ready"), 0.0)


def test_what_one_worker_measured_outlives_it_and_is_told_to_the_next() -> None:
    models = _models()
    assert models.take(_READY, 0.0)
    assert not models.take(_READY, 0.0)
    models.worker_lost()
    state = models.get(_WARM)
    assert state is not None
    assert (state.status, state.progress) == ("loading", 0.0)
    models.take(ModelState(_WARM, "loading", 0.5), 0.0)
    state = models.get(_WARM)
    assert state is not None
    assert (state.facts, state.load_seconds, state.pace) == (ModelFacts(), 3.0, 1e-6)
    told = {model.model_id: model for model in models.for_worker()}
    assert (told[_WARM].load_seconds, told[_WARM].pace) == (3.0, 1e-6)
    assert told[_COLD].pace is None


def test_a_model_under_which_worker_after_worker_dies_is_left_out_once() -> None:
    models = _models()
    _die_loading(models)
    _die_loading(models)
    assert _broken(models) == {_WARM: False, _COLD: False}
    _die_loading(models)
    assert _broken(models) == {_WARM: True, _COLD: False}
    # The worker that left it out may end for another reason; then it is tried again.
    models.worker_lost()
    assert _broken(models) == {_WARM: False, _COLD: False}


def test_only_workers_in_a_row_that_had_begun_to_read_it_count() -> None:
    models = _models()
    _die_loading(models)
    _die_loading(models)
    models.take(_READY, 0.0)
    _die_loading(models)
    models.take(ModelState(_WARM, "loading", 0.0), 0.0)
    models.worker_lost()
    models.worker_lost()
    assert _broken(models) == {_WARM: False, _COLD: False}


def test_a_size_that_did_not_fit_is_offered_again_after_a_while() -> None:
    models = _models()
    refusing = replace(_READY, refused_pixels=512 * 512)
    models.take(refusing, 100.0)
    models.take(replace(refusing, pace=2e-6), 130.0)
    assert not models.forget_refused_sizes(160.0)
    assert models.forget_refused_sizes(160.1)
    state = models.get(_WARM)
    assert state is not None
    assert (state.refused_pixels, state.pace) == (None, 2e-6)
    assert not models.forget_refused_sizes(200.0)
