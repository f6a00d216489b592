"""What a model's files say of its size, and reading them ahead."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from node.engine.families.folder import ModelFolder, ModelFolderError, inspect_folder
from node.engine.families.loading import open_model, weight_bytes
from node.engine.weights import estimated_bytes, read_ahead
from tests.node.engine import tiny

pytestmark = pytest.mark.filterwarnings("ignore")

_CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("models") / "tiny"
    tiny.stable_diffusion(path, "dpm")
    return path


def test_the_estimate_is_what_a_loaded_model_takes(folder: Path) -> None:
    estimate = weight_bytes(folder, "float32", _CPU)
    measured = open_model(folder, "float32", _CPU, lambda _: None).size
    # Beside the weights there are small tables that no file holds.
    assert 0.98 * measured < estimate <= measured
    # Whole numbers keep their size.
    assert estimate // 2 <= weight_bytes(folder, "float16", _CPU) < 0.51 * estimate


def _folder(path: Path, **files: bytes) -> ModelFolder:
    (path / "unet").mkdir()
    for name, content in files.items():
        (path / "unet" / f"{name}.safetensors").write_bytes(content)
    weights = {"unet": tuple(f"{name}.safetensors" for name in files)}
    return ModelFolder(path, "X", {"unet": "Y"}, None, weights)


def test_only_the_files_that_will_be_read_count(folder: Path, tmp_path: Path) -> None:
    source = next((folder / "unet").glob("*.safetensors")).read_bytes()
    whole = _folder(tmp_path, a=source, b=source)
    half = replace(whole, weights={"unet": ("a.safetensors",)})
    assert 0 < estimated_bytes(half, 4) == estimated_bytes(whole, 4) / 2


@pytest.mark.parametrize(
    "content", [b"", b"\xff" * 8, b"\x02" + bytes(7) + b"[]", b"\x09" + bytes(7) + b'{"a": 1}']
)
def test_what_is_no_safetensors_file_is_named(tmp_path: Path, content: bytes) -> None:
    with pytest.raises(ModelFolderError, match=r"broken\.safetensors"):
        estimated_bytes(_folder(tmp_path, broken=content), 4)


def test_reading_ahead_tells_the_share_that_is_read(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("node.engine.weights._CHUNK", 4096)
    told: list[float] = []
    read_ahead(inspect_folder(folder), told.append)
    assert told[0] == 0.0
    assert told[-1] == 1.0
    assert told == sorted(told)
    assert len(told) > 10
