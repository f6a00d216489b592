"""`limner-node models list`, `add` and `verify`, and what they find wrong."""

import hashlib
import json
import shutil
import tomllib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner, Result
from hypothesis import given
from hypothesis import strategies as st
from safetensors.numpy import load_file, save_file

from network.errors import ConfigError
from network.runtime.settings import load
from node.__main__ import main
from node.cli.config_file import append_model
from node.cli.verification import verify
from node.config.model_folders import BUILTIN_FOLDER, hub_cache
from node.config.settings import NodeSettings

UNET = "unet/diffusion_pytorch_model.safetensors"
COMMIT = "f" * 40


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HF_HUB_CACHE", "HUGGINGFACE_HUB_CACHE", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hf"))


@pytest.fixture
def model(tmp_path: Path) -> Path:
    """Return a copy of the built-in model that a test may spoil."""
    return shutil.copytree(BUILTIN_FOLDER, tmp_path / "model")


def limner(folder: Path, *arguments: str | Path) -> Result:
    words = [str(argument) for argument in arguments]
    return CliRunner().invoke(main, [*words, "--data-dir", str(folder / "data")])


def cached(root: Path, organisation: str, name: str) -> Path:
    """A snapshot in the cache's layout, its files links to blobs that are named by their hash."""
    top = root / f"models--{organisation}--{name}"
    for file in BUILTIN_FOLDER.rglob("*"):
        if not file.is_file():
            continue
        content = file.read_bytes()
        if file.suffix == ".safetensors":
            digest = hashlib.sha256(content).hexdigest()
        else:
            blob = b"blob %d\0" % len(content) + content
            digest = hashlib.sha1(blob, usedforsecurity=False).hexdigest()
        blob_path = top / "blobs" / digest
        blob_path.parent.mkdir(parents=True, exist_ok=True)
        blob_path.write_bytes(content)
        link = top / "snapshots" / COMMIT / file.relative_to(BUILTIN_FOLDER)
        link.parent.mkdir(parents=True, exist_ok=True)
        link.symlink_to(blob_path)
    (top / "refs").mkdir()
    (top / "refs" / "main").write_text(COMMIT)
    return top / "snapshots" / COMMIT


def problems(path: Path) -> str:
    return "\n".join(verify(path).problems)


def test_a_good_model_has_no_problems(model: Path) -> None:
    findings = verify(model)
    assert findings.problems == ()
    assert findings.pipeline == "StableDiffusionPipeline"
    assert {part.name for part in findings.components} == {"unet", "vae", "text_encoder"}
    unet = next(part for part in findings.components if part.name == "unet")
    assert unet.size == (model / UNET).stat().st_size
    assert unet.tensors == len(load_file(model / UNET))


def test_weights_that_were_cut_short_or_are_none_are_named(model: Path) -> None:
    whole = (model / UNET).read_bytes()
    (model / UNET).write_bytes(whole[:-1])
    assert f"{UNET}: is not whole" in problems(model)
    (model / UNET).write_bytes(whole + b"x")
    assert f"{UNET}: is not whole" in problems(model)
    (model / UNET).write_bytes(b"version https://git-lfs.github.com/spec/v1\n")
    assert f"{UNET}: is not whole" in problems(model)
    (model / UNET).unlink()
    assert "unet: its weights" in problems(model)


def test_a_configuration_that_is_no_json_is_named(model: Path) -> None:
    (model / "vae" / "config.json").write_text("{")
    assert problems(model) == "vae/config.json: is not JSON"


def test_shards_are_compared_with_their_index(model: Path) -> None:
    tensors = load_file(model / UNET)
    (model / UNET).unlink()
    names = sorted(tensors)
    halves = {1: names[: len(names) // 2], 2: names[len(names) // 2 :]}
    told: dict[str, str] = {}
    for number, part in halves.items():
        file = f"diffusion_pytorch_model-0000{number}-of-00002.safetensors"
        save_file({name: tensors[name] for name in part}, model / "unet" / file)
        told |= dict.fromkeys(part, file)
    index = model / "unet" / "diffusion_pytorch_model.safetensors.index.json"
    index.write_text(json.dumps({"weight_map": told}))
    assert verify(model).problems == ()
    told[names[0]], told[names[-1]] = told[names[-1]], told[names[0]]
    index.write_text(json.dumps({"weight_map": told}))
    assert f"2 tensors are not where it says, {names[0]} for one" in problems(model)
    index.write_text("{}")
    assert "no index names these shards" in problems(model)


def test_hashes_of_the_cache_are_compared(tmp_path: Path) -> None:
    snapshot = cached(tmp_path, "a", "b")
    files = [path for path in snapshot.rglob("*") if path.is_file()]
    findings = verify(snapshot)
    assert (findings.problems, findings.hashed) == ((), len(files))
    blob = (snapshot / UNET).resolve()
    content = bytearray(blob.read_bytes())
    content[-1] ^= 1
    blob.write_bytes(content)
    assert problems(snapshot) == f"{UNET}: was altered, or did not arrive whole"
    assert verify(snapshot, hashes=False).problems == ()
    blob.unlink()
    assert f"missing: {UNET}" in problems(snapshot)


def test_models_are_listed_wherever_they_are(tmp_path: Path, model: Path) -> None:
    cached(tmp_path / "hf" / "hub", "c", "d")
    shutil.copytree(model, tmp_path / "data" / "models" / "a" / "b")
    (tmp_path / "data" / "models" / "a" / "b" / "README.md").write_text("---\nlicense: mit\n---\n")
    config = tmp_path / "node.toml"
    config.write_text(
        f'[[models]]\nid = "mine"\npath = "{model}"\nwarm = false\n'
        '[[models]]\nid = "stabilityai/sdxl-turbo"\n'
    )
    rows = json.loads(limner(tmp_path, "models", "list", "--json", "--config", config).output)
    by_id: dict[str, dict[str, Any]] = {row["id"]: row for row in rows}
    assert list(by_id) == ["mine", "stabilityai/sdxl-turbo", "limner/shapes", "a/b", "c/d"]
    assert [row["source"] for row in rows] == ["path", "", "built in", "models_dir", "hub cache"]
    assert [row["configured"] for row in rows] == [True, True, False, False, False]
    assert (by_id["mine"]["warm"], by_id["a/b"]["licence"]) == (False, "mit")
    assert by_id["c/d"]["revision"] == COMMIT
    assert by_id["stabilityai/sdxl-turbo"]["known_profile"] is True
    assert "models pull" in by_id["stabilityai/sdxl-turbo"]["problem"]
    assert by_id["mine"]["bytes"] == sum(
        path.stat().st_size for path in model.rglob("*") if path.is_file()
    )
    table = limner(tmp_path, "models", "list", "--config", config).output
    for words in ("StableDiffusionPipeline", "cold", "hub cache", "mit", "known"):
        assert words in table


def test_the_hub_cache_is_where_hugging_faces_library_has_it() -> None:
    assert hub_cache({"HF_HOME": "/h"}) == Path("/h/hub")
    assert hub_cache({"HF_HOME": "/h", "HF_HUB_CACHE": "/c"}) == Path("/c")
    assert hub_cache({"XDG_CACHE_HOME": "/x"}) == Path("/x/huggingface/hub")
    assert hub_cache({}) == Path("~/.cache/huggingface/hub").expanduser()


def test_a_folder_is_added_once_and_the_file_keeps_what_it_holds(
    tmp_path: Path, model: Path
) -> None:
    config = tmp_path / "node.toml"
    add = ("models", "add", model, "--id", "me/mine", "--config", config, "--write")
    done = limner(tmp_path, *add, "--price", "5 gwei", "--capacity", "3", "--cold")
    assert done.exit_code == 0, done.output
    (entry,) = tomllib.loads(config.read_text())["models"]
    assert entry == {
        "id": "me/mine",
        "price": "5 gwei",
        "capacity": 3,
        "warm": False,
        "path": str(model),
    }
    again = limner(tmp_path, *add)
    assert again.exit_code == 1
    assert "is in" in again.output
    assert "already" in again.output


def test_without_write_the_entry_is_printed(tmp_path: Path, model: Path) -> None:
    printed = limner(tmp_path, "models", "add", model, "--id", "me/mine")
    assert tomllib.loads(printed.stdout) == {"models": [{"id": "me/mine", "path": str(model)}]}
    nameless = limner(tmp_path, "models", "add", model)
    assert nameless.exit_code == 2
    assert "--id organisation/name" in nameless.output
    snapshot = cached(tmp_path / "hf" / "hub", "c", "d")
    named = limner(tmp_path, "models", "add", snapshot)
    assert tomllib.loads(named.stdout)["models"][0]["id"] == "c/d"


def test_a_broken_folder_is_not_added(tmp_path: Path, model: Path) -> None:
    (model / UNET).write_bytes((model / UNET).read_bytes()[:-7])
    config = tmp_path / "node.toml"
    done = limner(tmp_path, "models", "add", model, "--id", "a/b", "--config", config, "--write")
    assert done.exit_code == 1
    assert "is not whole" in done.output
    assert not config.exists()


def test_verify_ends_with_a_status_for_scripts(tmp_path: Path, model: Path) -> None:
    good = limner(tmp_path, "models", "verify")
    assert (good.exit_code, "limner/shapes: good" in good.output) == (0, True)
    (model / UNET).write_bytes(b"")
    bad = limner(tmp_path, "models", "verify", model, "limner/shapes", "--json")
    assert bad.exit_code == 1
    broken, whole = json.loads(bad.output)
    assert UNET in broken["problems"][0]
    assert whole["problems"] == []
    unknown = limner(tmp_path, "models", "verify", "a/b")
    assert "there is no model a/b" in unknown.output


def test_verify_can_make_an_image_and_tells_what_only_loading_shows(
    tmp_path: Path, model: Path
) -> None:
    tensors = load_file(model / UNET)
    name = min(tensors)
    save_file(tensors | {name: np.zeros((3, 1), np.float16)}, model / UNET, {"format": "pt"})
    assert limner(tmp_path, "models", "verify", model).exit_code == 0
    said = limner(tmp_path, "models", "verify", model, "limner/shapes", "--load", "--json")
    assert said.exit_code == 1
    broken, good = json.loads(said.output)
    assert "cannot make an image" in broken["problems"][0]
    assert good["problems"] == []


TABLES = st.lists(
    st.sampled_from(
        ["[limits]\nmax_steps = 7\n", "# words\n", "\n", "[[models]]\nid = 'x/y' # mine\n"]
    ),
    unique=True,
)


@given(TABLES, st.sampled_from(["", 'price = "3"\n', "listen = 'https://127.0.0.1:1'\n\n"]))
def test_whatever_a_file_holds_stays_and_the_model_is_added_last(
    tables: list[str], head: str
) -> None:
    import tempfile  # noqa: PLC0415  a fixture's folder would be shared by all examples

    text = head + "".join(tables)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "node.toml"
        path.write_text(text)
        append_model(path, {"id": "new/one", "path": "/m"})
        written = path.read_text()
        settings = load(NodeSettings, path, "NONE__", {}, {})
        assert list(path.parent.iterdir()) == [path]
    before = tomllib.loads(text)
    after = tomllib.loads(written)
    assert after.pop("models")[-1] == {"id": "new/one", "path": "/m"}
    before.pop("models", None)
    assert after == before
    for line in text.splitlines():
        assert line in written.splitlines()
    assert settings.models[-1].id == "new/one"


def test_a_file_from_which_no_node_starts_is_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "node.toml"
    path.write_text("prise = 1\n")
    with pytest.raises(ConfigError, match="did you mean 'price'"):
        append_model(path, {"id": "a/b"})
    assert path.read_text() == "prise = 1\n"
    assert list(tmp_path.iterdir()) == [path]
