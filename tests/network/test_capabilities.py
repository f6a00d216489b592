"""Vectors of the reference implementation, and properties of the bit strings."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from network.capabilities import (
    DEFAULT_CAPABILITIES,
    TEXT_TO_IMAGE,
    Capabilities,
    Match,
    Mismatch,
    ModelConstraint,
    bits_of,
    bitstring,
    capability_name,
    capability_of,
    compatible,
    job_capabilities,
    node_capabilities,
    pipeline_of,
)
from network.units import ModelId

MODEL = ModelId("limner/shapes")


def caps(
    bits: set[int],
    mandatories: set[int] = frozenset(),  # type: ignore[assignment]
    version: str = "",
    min_version: str = "",
) -> Capabilities:
    return Capabilities(
        frozenset(bits), frozenset(mandatories), version=version, min_version=min_version
    )


@pytest.mark.parametrize(
    ("bits", "words"),
    [
        ([-10, -1, 0, 1, 2, 3, 4, 5], [63]),
        ([193, 192], [0, 0, 0, 3]),
        ([193, 54, 192, 79], [2**54, 2**15, 0, 3]),
        ([128, 2, 3], [12, 0, 1]),
        ([128], [0, 0, 1]),
        ([], []),
        (DEFAULT_CAPABILITIES | {TEXT_TO_IMAGE}, [201351167]),
        (DEFAULT_CAPABILITIES, [67133439]),
        (range(12), [4095]),
    ],
)
def test_bit_strings_are_those_of_the_reference(bits: list[int], words: list[int]) -> None:
    assert bitstring(bits) == words


@given(st.frozensets(st.integers(0, 1023)))
def test_a_bit_string_holds_exactly_its_bits(bits: frozenset[int]) -> None:
    words = bitstring(bits)
    assert bits_of(words) == bits
    assert all(0 <= word < 2**64 for word in words)


@pytest.mark.parametrize(
    ("job", "orchestrator", "fits"),
    [
        (caps(set()), caps(set()), True),
        (caps({1}), caps(set()), False),
        (caps(set()), caps({1}), True),
        (caps({1}), caps({2}), False),
        (caps({1}), caps({1, 2}), True),
        (caps({1}), caps({1, 2, 3}, {3}), False),
        (caps({3}), caps({1, 2, 3}, {3}), True),
        (caps({1, 3}), caps({1, 2, 3}, {3}), True),
        (caps({1}, {1}), caps({1, 2}), True),
        (caps({0, 1, 2, 3}), Capabilities(bits_of([15])), True),
    ],
)
def test_bits_match_as_in_the_reference(
    job: Capabilities, orchestrator: Capabilities, *, fits: bool
) -> None:
    assert isinstance(compatible(job, orchestrator), Match) is fits


@pytest.mark.parametrize(
    ("least", "version", "fits"),
    [
        ("0.4.1", "0.4.1", True),
        ("0.4.0", "0.4.1", True),
        ("0.4.2", "0.4.1", False),
        ("0.4.1", "0.4.1-b3278dce-dirty", True),
        ("0.4.2", "0.4.1-b3278dce-dirty", False),
        ("", "0.4.1", True),
        ("", "", True),
        ("0.4.0", "", False),
        ("0.4.0", "undefined", False),
        ("nonparsablesemversion", "0.4.1", True),
        ("0.4.1", "nonparsablesemversion", False),
        ("0.10.0", "0.9.9", False),
    ],
)
def test_versions_compare_as_in_the_reference(least: str, version: str, *, fits: bool) -> None:
    found = compatible(caps(set(), min_version=least), caps(set(), version=version))
    assert isinstance(found, Match) is fits


def offer(**models: ModelConstraint) -> Capabilities:
    return node_capabilities({name.replace("__", "/"): m for name, m in models.items()}, "0.1.0")


def test_a_listed_model_matches_even_without_a_free_slot() -> None:
    node = offer(limner__shapes=ModelConstraint(warm=True, capacity=0))
    assert compatible(job_capabilities(MODEL, "0.1.0"), node) == Match()


def test_an_unlisted_model_is_refused_by_name() -> None:
    node = offer(other__model=ModelConstraint(warm=True, capacity=1))
    found = compatible(job_capabilities(MODEL, "0.1.0"), node)
    assert found == Mismatch("model limner/shapes is not offered")


def test_a_job_that_needs_a_warm_model_passes_over_a_cold_one() -> None:
    node = offer(limner__shapes=ModelConstraint(warm=False, capacity=1))
    assert compatible(job_capabilities(MODEL, "0.1.0"), node) == Match()
    found = compatible(job_capabilities(MODEL, "0.1.0", warm=True), node)
    assert found == Mismatch("model limner/shapes is not warm")


def test_a_runner_older_than_asked_is_refused() -> None:
    node = offer(limner__shapes=ModelConstraint(warm=True, capacity=1, runner_version="0.13.0"))
    job = job_capabilities(MODEL, "0.1.0", runner_version="0.14.0")
    found = compatible(job, node)
    assert found == Mismatch("runner 0.13.0 of limner/shapes is older than 0.14.0")


def test_an_orchestrator_that_lists_no_models_constrains_none() -> None:
    bits = DEFAULT_CAPABILITIES | {TEXT_TO_IMAGE}
    assert compatible(job_capabilities(MODEL, ""), Capabilities(bits)) == Match()


def test_a_missing_capability_is_named() -> None:
    found = compatible(job_capabilities(MODEL, ""), Capabilities(frozenset(range(12))))
    assert isinstance(found, Mismatch)
    assert "Text to image" in found.reason


def test_a_job_asks_for_what_orchestrators_price() -> None:
    job = job_capabilities(MODEL, "0.1.0", min_version="0.9.0")
    assert job.capacities[TEXT_TO_IMAGE] == 1
    assert job.models[TEXT_TO_IMAGE] == {MODEL: ModelConstraint(warm=False, capacity=0)}
    assert job.min_version == "0.9.0"
    assert not job.mandatories


@pytest.mark.parametrize(
    ("pipeline", "capability"),
    [("text-to-image", 27), ("audio-to-text", 31), ("llm", 33)],
)
def test_pipelines_have_their_capability(pipeline: str, capability: int) -> None:
    assert capability_of(pipeline) == capability
    assert pipeline_of(capability) == pipeline


def test_an_unknown_pipeline_is_an_error() -> None:
    with pytest.raises(ValueError, match="i-love-tests"):
        capability_of("i-love-tests")


def test_names_are_the_references_and_numbers_otherwise() -> None:
    assert capability_name(27) == "Text to image"
    assert capability_name(37) == "byoc"
    assert capability_name(-100) == "-100"
