"""Weights told apart by their names, and one variant chosen for all components."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from node.engine.families.variants import (
    VariantError,
    Weights,
    choose_variant,
    chosen,
    has_weights,
    weights_by_variant,
)

PLAIN = "diffusion_pytorch_model.safetensors"
HALF = "diffusion_pytorch_model.fp16.safetensors"
WEIGHTS = Weights(("x",))
COMPONENTS = st.dictionaries(
    st.sampled_from(["unet", "vae", "text_encoder"]),
    st.dictionaries(st.sampled_from([None, "fp16", "bf16", "ema"]), st.just(WEIGHTS), min_size=1),
    min_size=1,
)


def test_whole_files_are_told_apart_by_variant() -> None:
    names = [PLAIN, HALF, "config.json", "diffusion_pytorch_model.bin", "lora.safetensors"]
    assert weights_by_variant(names) == {None: Weights((PLAIN,)), "fp16": Weights((HALF,))}


@pytest.mark.parametrize(
    ("pattern", "index"),
    [
        ("model-{}-of-00003.safetensors", "model.safetensors.index.json"),
        ("model.fp16-{}-of-00003.safetensors", "model.safetensors.index.fp16.json"),
        ("model-{}-of-00003.fp16.safetensors", "model.safetensors.index.fp16.json"),
    ],
)
def test_shards_are_one_set_and_tell_which_is_missing(pattern: str, index: str) -> None:
    shards = [pattern.format(f"{number:05d}") for number in (1, 2, 3)]
    variant = "fp16" if "fp16" in pattern else None
    assert weights_by_variant(shards) == {variant: Weights(tuple(shards), (), index)}
    assert weights_by_variant([shards[2], shards[0]]) == {
        variant: Weights((shards[0], shards[2]), (shards[1],), index)
    }


def test_a_whole_file_goes_before_shards() -> None:
    names = ["model.safetensors", "model-00001-of-00002.safetensors"]
    assert weights_by_variant(names) == {None: Weights(("model.safetensors",))}


@given(st.lists(st.text(max_size=40)))
def test_any_names_are_sorted_without_an_error(names: list[str]) -> None:
    for found in weights_by_variant(names).values():
        assert set(found.files) <= set(names)


@given(COMPONENTS, st.sampled_from([None, "fp16", "bf16"]))
def test_a_choice_gives_every_component_its_weights_or_there_is_none(
    components: dict[str, dict[str | None, Weights]], wanted: str | None
) -> None:
    variants = {variant for there in components.values() for variant in there}
    able = {
        variant
        for variant in variants | {None}
        if all(variant in there or None in there for there in components.values())
    }
    if wanted in variants and wanted is not None:
        able &= {wanted}
    if not able:
        with pytest.raises(VariantError):
            choose_variant(components, wanted)
        return
    variant = choose_variant(components, wanted)
    assert variant in able
    for there in components.values():
        assert chosen(there, variant) is WEIGHTS
    if wanted is None and None in able:
        assert variant is None


def test_mixed_variants_are_loaded_and_contradicting_ones_named() -> None:
    mixed: dict[str, dict[str | None, Weights]] = {
        "unet": {"fp16": WEIGHTS},
        "vae": {None: WEIGHTS},
        "text_encoder": {"fp16": WEIGHTS},
    }
    assert choose_variant(mixed) == "fp16"
    with pytest.raises(VariantError, match="unet has fp16; vae has bf16"):
        choose_variant({"unet": {"fp16": WEIGHTS}, "vae": {"bf16": WEIGHTS}})


def test_only_models_have_weights() -> None:
    for name in ("CLIPTokenizer", "T5TokenizerFast", "DDIMScheduler", "CLIPImageProcessor"):
        assert not has_weights(name)
    for name in ("UNet2DConditionModel", "AutoencoderKL", "CLIPTextModelWithProjection"):
        assert has_weights(name)
