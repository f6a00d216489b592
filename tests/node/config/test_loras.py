"""What a LoRA's file must be, where it is looked for, and who may name it."""

import json
import struct
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from network.errors import ConfigError
from network.units import ModelId
from node.config.catalogue import BUILTIN_FOLDER, BUILTIN_MODEL, catalogue
from node.config.lora_file import LoraBounds, LoraFileError, LoraHead, inspect_lora, read_lora
from node.config.loras import ServedLora, builtin_loras, refusal
from node.config.settings import NodeSettings

_PAIR = {"unet.a.lora_A.weight": (2, 8), "unet.a.lora_B.weight": (8, 2)}
_MODEL = ModelId("some/model")


def lora_file(
    path: Path, shapes: Mapping[str, Sequence[int]], dtype: str = "F16", **changes: Any
) -> Path:
    """Write a safetensors file of zeros by hand; `changes` replace header entries."""
    entries: dict[str, Any] = {}
    end = 0
    for name, shape in shapes.items():
        size = 2
        for side in shape:
            size *= side
        entries[name] = {"dtype": dtype, "shape": list(shape), "data_offsets": [end, end + size]}
        end += size
    header = json.dumps({"__metadata__": {"format": "pt"}, **entries, **changes}).encode()
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(struct.pack("<Q", len(header)) + header + bytes(end))
    return path


@pytest.mark.parametrize(
    "shapes",
    [
        _PAIR,
        {"lora_unet_a.lora_down.weight": (2, 8, 3, 3), "lora_unet_a.lora_up.weight": (8, 2, 1, 1)},
        {"unet.a.processor.to_q_lora.down.weight": (2, 8), "unet.a.to_q_lora.up.weight": (8, 2)},
        {"transformer.a.lora_A.default.weight": (2, 8), "transformer.a.lora_B.bias": (8,)},
    ],
)
def test_the_names_of_diffusers_peft_and_kohya_are_known(
    tmp_path: Path, shapes: dict[str, tuple[int, ...]]
) -> None:
    path = lora_file(tmp_path / "x.safetensors", shapes)
    assert inspect_lora(path, LoraBounds()) == LoraHead(pairs=1, rank=2)
    assert read_lora(path, LoraBounds()) == (LoraHead(1, 2), path.read_bytes())


@pytest.mark.parametrize(
    ("shapes", "changes", "bounds", "reason"),
    [
        (_PAIR, {}, LoraBounds(max_bytes=100), "bytes; the most that is allowed are 100"),
        (_PAIR, {}, LoraBounds(max_rank=1), "rank 2; the most that is allowed is 1"),
        ({"model.weight": (2, 2)}, {}, LoraBounds(), "no part of a LoRA"),
        ({**_PAIR, "a.hada_w1_a": (2, 2)}, {}, LoraBounds(), "no part of a LoRA"),
        ({**_PAIR, "a.dora_scale": (2, 2)}, {}, LoraBounds(), "no part of a LoRA"),
        ({"unet.a.lora_A.weight": (2,)}, {}, LoraBounds(), "is no matrix"),
        ({"unet.a.alpha": ()}, {}, LoraBounds(), "holds no LoRA"),
        (
            _PAIR,
            {"x.lora_A.weight": {"dtype": "F16", "shape": [1, 2], "data_offsets": [0, 10**9]}},
            LoraBounds(),
            "does not lie in it",
        ),
        (
            _PAIR,
            {"x.lora_A.weight": {"dtype": "F16", "shape": [9**9, 9], "data_offsets": [0, 2]}},
            LoraBounds(max_rank=10**12),
            "larger than the file",
        ),
        (
            _PAIR,
            {"x.lora_A.weight": {"dtype": "I64", "shape": [1, 2], "data_offsets": [0, 2]}},
            LoraBounds(),
            "F16, BF16 and F32",
        ),
        (_PAIR, {"x.lora_A.weight": 7}, LoraBounds(), "header cannot be read"),
    ],
)
def test_a_file_that_may_not_be_used_is_refused_before_its_tensors_are_read(
    tmp_path: Path,
    shapes: dict[str, tuple[int, ...]],
    changes: dict[str, Any],
    bounds: LoraBounds,
    reason: str,
) -> None:
    path = lora_file(tmp_path / "x.safetensors", shapes, **changes)
    with pytest.raises(LoraFileError, match=reason):
        inspect_lora(path, bounds)


@given(st.binary(max_size=200))
def test_any_other_bytes_are_refused(
    tmp_path_factory: pytest.TempPathFactory, data: bytes
) -> None:
    path = tmp_path_factory.mktemp("any") / "x.safetensors"
    path.write_bytes(data)
    with pytest.raises(LoraFileError):
        inspect_lora(path, LoraBounds())


def _settings(tmp_path: Path, *loras: dict[str, Any], **more: Any) -> NodeSettings:
    model = {"id": _MODEL, "path": BUILTIN_FOLDER.parent / "shapes"}
    return NodeSettings.model_validate(
        {"data_dir": tmp_path, "models": [model], "loras": loras, **more}
    )


@pytest.mark.parametrize(
    "place",
    [
        "loras/nerijs/pixel-art.safetensors",
        "loras/nerijs/pixel-art/anything.safetensors",
        "loras/models--nerijs--pixel-art/snapshots/abc/x.safetensors",
    ],
)
def test_a_lora_without_a_path_is_found_by_its_id(tmp_path: Path, place: str) -> None:
    path = lora_file(tmp_path / place, _PAIR)
    refs = tmp_path / "loras/models--nerijs--pixel-art/refs"
    refs.mkdir(parents=True, exist_ok=True)
    (refs / "main").write_text("abc\n")
    (lora,) = catalogue(_settings(tmp_path, {"id": "nerijs/pixel-art"})).loras[:1]
    assert lora == ServedLora("nerijs/pixel-art", path.resolve())


@pytest.mark.parametrize(
    ("loras", "message"),
    [
        ([{"id": "a/b"}], "a/b is not in .*loras. Put its file at"),
        ([{"id": "../b"}], "not a LoRA's id"),
        ([{"id": "ok"}, {"id": "ok"}], "listed twice"),
        ([{"id": "pickled", "path": "x.bin"}], "is no .safetensors file"),
        (
            [{"id": "two"}],
            "must hold one .safetensors file, and has: 1.safetensors, 2.safetensors",
        ),
        ([{"id": "large"}], "rank 300; the most"),
        ([{"id": "ok", "models": ["no/such"]}], "no/such is not served here"),
    ],
)
def test_a_lora_that_cannot_be_served_ends_the_start_with_its_name(
    tmp_path: Path, loras: list[dict[str, Any]], message: str
) -> None:
    root = tmp_path / "loras"
    lora_file(root / "ok.safetensors", _PAIR)
    lora_file(root / "two/1.safetensors", _PAIR)
    lora_file(root / "two/2.safetensors", _PAIR)
    lora_file(root / "large.safetensors", {"unet.a.lora_A.weight": (300, 8)})
    with pytest.raises(ConfigError, match=message):
        catalogue(_settings(tmp_path, *loras))


def test_the_built_in_model_brings_its_loras_and_no_other_model_does(tmp_path: Path) -> None:
    served = catalogue(NodeSettings(data_dir=tmp_path)).loras
    assert [lora.lora_id for lora in served] == ["limner/night", "limner/outlines"]
    assert all(lora.models == {BUILTIN_MODEL} for lora in served)
    for lora in served:
        assert lora.path.stat().st_size <= 200_000
        assert inspect_lora(lora.path, LoraBounds()).rank <= 4
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "model_index.json").write_text("{}")
    other = {"id": _MODEL, "path": tmp_path / "model"}
    assert not catalogue(NodeSettings.model_validate({"models": [other]})).loras


def test_an_unknown_lora_and_one_for_another_model_are_told_apart() -> None:
    path = Path("x")
    loras = [ServedLora("any", path), *builtin_loras([BUILTIN_MODEL])]
    assert refusal(loras, BUILTIN_MODEL, ["any", "limner/night"]) is None
    assert refusal(loras, _MODEL, []) is None
    assert refusal(loras, _MODEL, ["any", "else"]) == (
        "LoRa 'else' is not offered here. Available for 'some/model': any."
    )
    assert refusal(loras, _MODEL, ["limner/night"]) == (
        "LoRa incompatible with base model: 'limner/night' is for limner/shapes, "
        "not for 'some/model'."
    )
    assert refusal([], _MODEL, ["a"]) == (
        "LoRa 'a' is not offered here. Available for 'some/model': none."
    )
