"""`limner-node models pull` against a hub on loopback."""

import json
import os
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save

from node.cli.download import PullError, select_files
from node.config.catalogue import catalogue
from node.config.model_folders import BUILTIN_FOLDER
from node.config.settings import NodeSettings
from tests.node.cli.hub import COMMIT, Hub, hub_of, repository

REPO = "maker/shapes"
UNET = "unet/diffusion_pytorch_model.safetensors"
CARD = "---\nlicense: other\nlicense_name: a-licence\n---\n# Shapes\n"
#: What a repository holds besides, and nobody here needs.
EXTRAS = {
    "shapes.safetensors": b"a whole checkpoint for other programs",
    "unet/diffusion_pytorch_model.bin": b"a pickle",
    "unet/diffusion_flax_model.msgpack": b"for another library",
    "vae/model.onnx": b"for another engine",
    "safety_checker/model.safetensors": b"never loaded",
    "safety_checker/config.json": b"{}",
    "unet/modelling.py": b"raise SystemExit",
    "preview.png": b"a picture",
}


@pytest.fixture
def hub() -> Iterator[Hub]:
    """Return a hub with the built-in model and what stands beside models on the real one."""
    files = {"README.md": CARD.encode(), **repository(BUILTIN_FOLDER), **EXTRAS}
    index = json.loads(files["model_index.json"])
    index["safety_checker"] = ["stable_diffusion", "StableDiffusionSafetyChecker"]
    files["model_index.json"] = json.dumps(index).encode()
    with hub_of(Hub(REPO, files)) as opened:
        yield opened


def limner(
    folder: Path, endpoint: str, *arguments: str | Path, **environment: str
) -> "subprocess.CompletedProcess[str]":
    command = [sys.executable, "-m", "node", *map(str, arguments)]
    command += ["--data-dir", str(folder / "data")]
    kept = {name: os.environ[name] for name in ("PATH", "HOME") if name in os.environ}
    return subprocess.run(
        command,
        env={**kept, "HF_HOME": str(folder / "hf"), "HF_ENDPOINT": endpoint, **environment},
        capture_output=True,
        text=True,
        check=False,
        timeout=100,
    )


def test_a_model_is_fetched_verified_configured_and_found(hub: Hub, tmp_path: Path) -> None:
    config = tmp_path / "node.toml"
    config.write_text("# mine\nprice = '7'\n")
    done = limner(
        tmp_path, hub.url, "models", "pull", REPO, "--config", config, "--write", "--price", "1/2"
    )
    assert done.returncode == 0, done.stderr
    assert "licence: a-licence" in done.stderr
    assert "limner/shapes is served only if it is listed" in done.stderr
    assert hub.fetched() == set(hub.files) - set(EXTRAS)
    settings = NodeSettings.model_validate(
        {**tomllib.loads(config.read_text()), "data_dir": tmp_path / "data"}
    )
    (model,) = catalogue(settings).models
    assert (model.model_id, str(model.price)) == (REPO, "1/2")
    assert model.path.name == COMMIT
    assert config.read_text().startswith("# mine\nprice = '7'\n")
    listed = limner(tmp_path, hub.url, "models", "list", "--json", "--config", config)
    entry, own = json.loads(listed.stdout)
    assert (entry["id"], entry["configured"], entry["source"]) == (REPO, True, "models_dir")
    assert (entry["licence"], entry["revision"], entry["problem"]) == ("a-licence", COMMIT, "")
    assert own["configured"] is False
    again = limner(tmp_path, hub.url, "models", "pull", REPO)
    assert again.returncode == 0
    assert again.stdout == f'[[models]]\nid = "{REPO}"\n'
    assert hub.sent[UNET] == len(hub.files[UNET])


def test_a_broken_connection_is_taken_up_where_it_broke(hub: Hub, tmp_path: Path) -> None:
    # The library keeps what it has in pieces of 10 MiB.
    piece = 10 * 2**20
    hub.files[UNET] = save({"padding": np.zeros(3 * piece, np.uint8)})
    hub.cuts[UNET] = [piece + 1000, piece + 2000]
    done = limner(tmp_path, hub.url, "models", "pull", REPO)
    assert done.returncode == 0, done.stderr
    asked = [one.range for one in hub.seen if one.path.endswith(UNET) and one.method == "GET"]
    assert asked == [None, f"bytes={piece}-", f"bytes={2 * piece}-"]
    (fetched,) = (tmp_path / "data" / "models").glob(f"models--*/snapshots/*/{UNET}")
    assert fetched.read_bytes() == hub.files[UNET]


def test_a_pull_that_failed_goes_on_with_what_has_not_arrived(hub: Hub, tmp_path: Path) -> None:
    hub.cuts[UNET] = [0] * 20
    failed = limner(tmp_path, hub.url, "models", "pull", REPO)
    assert failed.returncode == 1
    assert "What has arrived whole is kept; run this again" in failed.stderr
    listed = json.loads(limner(tmp_path, hub.url, "models", "list", "--json").stdout)
    assert "unet" in next(one for one in listed if one["id"] == REPO)["problem"]
    hub.cuts.clear()
    sent = dict(hub.sent)
    done = limner(tmp_path, hub.url, "models", "pull", REPO)
    assert done.returncode == 0, done.stderr
    again = {path for path in hub.sent if hub.sent[path] != sent.get(path)}
    assert UNET in again
    assert "text_encoder/model.safetensors" not in again


def test_without_a_network_it_says_so_and_what_to_do(hub: Hub, tmp_path: Path) -> None:
    nowhere = "http://127.0.0.1:9"
    for environment, cause in (({}, "refused"), ({"HF_HUB_OFFLINE": "1"}, "HF_HUB_OFFLINE")):
        done = limner(tmp_path, nowhere, "models", "pull", REPO, **environment)
        assert done.returncode == 1
        for words in (nowhere, cause, "copy the model's folder", "limner-node models add"):
            assert words in done.stderr
        assert "Traceback" not in done.stderr
    assert not hub.seen


def test_a_model_for_account_holders_asks_for_a_token_and_never_shows_it(
    hub: Hub, tmp_path: Path
) -> None:
    hub.token = "hf_secret"
    refused = limner(tmp_path, hub.url, "models", "pull", REPO, HF_TOKEN="hf_wrong")
    assert refused.returncode == 1
    assert "set HF_TOKEN" in refused.stderr
    good = limner(tmp_path, hub.url, "models", "pull", REPO, HF_TOKEN="hf_secret")
    assert good.returncode == 0, good.stderr
    for said in (refused, good):
        assert "hf_" not in said.stdout + said.stderr
    kept = [path for path in (tmp_path / "data").rglob("*") if path.is_file()]
    assert not any(b"hf_secret" in path.read_bytes() for path in kept)


def test_an_unknown_model_or_revision_is_named(hub: Hub, tmp_path: Path) -> None:
    unknown = limner(tmp_path, hub.url, "models", "pull", "maker/other")
    assert "has no maker/other" in unknown.stderr
    revision = limner(tmp_path, hub.url, "models", "pull", REPO, "--revision", "v9")
    assert "no revision v9" in revision.stderr


COMPONENTS = {
    "unet": "UNet2DConditionModel",
    "vae": "AutoencoderKL",
    "tokenizer": "CLIPTokenizer",
    "safety_checker": "StableDiffusionSafetyChecker",
}
FILES = dict.fromkeys(
    (
        "model_index.json",
        "LICENSE.md",
        "unet/config.json",
        "unet/diffusion_pytorch_model.safetensors",
        "unet/diffusion_pytorch_model.fp16.safetensors",
        "vae/config.json",
        "vae/diffusion_pytorch_model-00001-of-00002.safetensors",
        "vae/diffusion_pytorch_model-00002-of-00002.safetensors",
        "vae/diffusion_pytorch_model.safetensors.index.json",
        "vae/diffusion_pytorch_model.safetensors.index.fp16.json",
        "tokenizer/vocab.json",
        "tokenizer/spiece.model",
        "tokenizer/special.tiktoken",
        "other/model.safetensors",
    ),
    1,
)


def test_the_wanted_variant_is_taken_where_there_is_one() -> None:
    half = select_files(FILES, COMPONENTS, "fp16")
    plain = select_files(FILES, COMPONENTS, None)
    assert (half.variant, plain.variant) == ("fp16", None)
    shared = set(FILES) - {
        "unet/diffusion_pytorch_model.safetensors",
        "unet/diffusion_pytorch_model.fp16.safetensors",
        "vae/diffusion_pytorch_model.safetensors.index.fp16.json",
        "tokenizer/special.tiktoken",
        "other/model.safetensors",
    }
    assert set(half.files) - shared == {"unet/diffusion_pytorch_model.fp16.safetensors"}
    assert set(plain.files) - shared == {"unet/diffusion_pytorch_model.safetensors"}
    assert half.size == len(half.files)


def test_weights_that_are_pickles_are_refused_by_name() -> None:
    files = {"unet/config.json": 1, "unet/diffusion_pytorch_model.bin": 1}
    with pytest.raises(PullError, match=r"unet has no whole weights in \.safetensors"):
        select_files(files, COMPONENTS, None)
