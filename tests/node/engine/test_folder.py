"""Model folders that are sharded, mixed, or not complete."""

from pathlib import Path

import pytest

from node.config.model_folders import BUILTIN_FOLDER
from node.engine.families.folder import ModelFolderError, inspect_folder
from tests.node.engine import tiny

pytestmark = pytest.mark.filterwarnings("ignore")


@pytest.fixture
def model(tmp_path: Path) -> Path:
    """Return a whole tiny model."""
    tiny.stable_diffusion(tmp_path / "model", "ddim")
    return tmp_path / "model"


def shard(folder: Path, variant: str | None = None) -> None:
    """Save a UNet again in shards."""
    import diffusers  # noqa: PLC0415  torch

    unet = diffusers.UNet2DConditionModel.from_pretrained(str(folder))
    (folder / "diffusion_pytorch_model.safetensors").unlink()
    unet.save_pretrained(str(folder), max_shard_size="40KB", variant=variant)


def loads(folder: Path) -> bool:
    from node.engine.families.loading import best_device, open_family  # noqa: PLC0415  torch

    return open_family(folder, "auto", best_device("cpu"), lambda _: None).facts is not None


def test_the_built_in_model_tells_its_files() -> None:
    folder = inspect_folder(BUILTIN_FOLDER)
    assert folder.variant is None
    assert folder.weights == {
        "text_encoder": ("model.safetensors",),
        "unet": ("diffusion_pytorch_model.safetensors",),
        "vae": ("diffusion_pytorch_model.safetensors",),
    }


@pytest.mark.parametrize("variant", [None, "fp16"])
def test_shards_are_found_and_loaded_whatever_the_others_are(
    model: Path, variant: str | None
) -> None:
    shard(model / "unet", variant)
    folder = inspect_folder(model)
    assert folder.variant == variant
    assert len(folder.weights["unet"]) > 1
    assert folder.weights["vae"] == ("diffusion_pytorch_model.safetensors",)
    assert loads(model)


def test_missing_files_are_all_named(model: Path) -> None:
    shard(model / "unet")
    second = inspect_folder(model).weights["unet"][1]
    (model / "unet" / second).unlink()
    (model / "unet" / "diffusion_pytorch_model.safetensors.index.json").unlink()
    (model / "vae" / "config.json").unlink()
    (model / "scheduler" / "scheduler_config.json").unlink()
    with pytest.raises(ModelFolderError, match="not complete") as caught:
        inspect_folder(model)
    for name in (f"unet/{second}", "index.json", "vae/config.json", "scheduler_config.json"):
        assert name in str(caught.value)


def test_a_link_into_the_cache_whose_target_is_gone_is_missing(model: Path) -> None:
    weights = model / "vae" / "diffusion_pytorch_model.safetensors"
    weights.unlink()
    weights.symlink_to(model / "blobs" / "gone")
    with pytest.raises(ModelFolderError, match="missing: vae/diffusion_pytorch_model"):
        inspect_folder(model)


def test_a_part_without_weights_or_without_a_folder_is_named(model: Path) -> None:
    (model / "vae" / "diffusion_pytorch_model.safetensors").unlink()
    with pytest.raises(ModelFolderError, match=r"vae: its weights .* are missing"):
        inspect_folder(model)
    for file in (model / "vae").iterdir():
        file.unlink()
    (model / "vae").rmdir()
    with pytest.raises(ModelFolderError, match="vae: is missing, and model_index"):
        inspect_folder(model)


def test_parts_that_are_never_loaded_may_be_missing_or_pickled(model: Path) -> None:
    index = (model / "model_index.json").read_text()
    named = '"safety_checker": ["stable_diffusion", "StableDiffusionSafetyChecker"],\n  "unet"'
    (model / "model_index.json").write_text(
        index.replace('"safety_checker": [\n    null,\n    null\n  ],\n  ', "").replace(
            '"unet"', named
        )
    )
    assert "safety_checker" in inspect_folder(model).components
    (model / "safety_checker").mkdir()
    (model / "safety_checker" / "pytorch_model.bin").touch()
    assert loads(model)
