"""Safety checkers from a folder: image classifiers of transformers, and Stable Diffusion's checker.

A folder comes from strangers: safetensors only, and no code of its own.
"""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Final

import msgspec
import torch
import transformers
from safetensors import SafetensorError

from node.engine.safety import CheckerError, Pixels, SafetyChecker

_STABLE_DIFFUSION: Final = "StableDiffusionSafetyChecker"
_PROCESSOR: Final = "preprocessor_config.json"


class ImageClassifier:
    """A SafetyChecker: the probability of all unsafe labels together.

    Models that give each label a probability of its own (`problem_type`
    "multi_label_classification") count by their highest one.
    """

    def __init__(self, model: Any, processor: Any, unsafe: Sequence[int]) -> None:
        self._model = model
        self._processor = processor
        self._unsafe = list(unsafe)
        self._multi_label = model.config.problem_type == "multi_label_classification"

    def scores(self, pictures: Sequence[Pixels]) -> list[float]:
        inputs = _inputs(self._processor, pictures, self._model.device)
        with torch.inference_mode():
            logits = self._model(pixel_values=inputs).logits
        if self._multi_label:
            return _numbers(logits.sigmoid()[:, self._unsafe].amax(dim=1))
        return _numbers(logits.softmax(dim=1)[:, self._unsafe].sum(dim=1))


class StableDiffusionChecker:
    """A SafetyChecker that says 1 or 0: its weights hold the thresholds of its concepts."""

    def __init__(self, model: Any, processor: Any) -> None:
        self._model = model
        self._processor = processor

    def scores(self, pictures: Sequence[Pixels]) -> list[float]:
        inputs = _inputs(self._processor, pictures, self._model.device)
        # It blackens what it is given beside the inputs: here, one value for each picture.
        blackened = torch.ones(len(pictures), 1, 1, 1)
        with torch.inference_mode():
            _, verdicts = self._model(clip_input=inputs, images=blackened)
        return [1.0 if verdict else 0.0 for verdict in verdicts]


def prepare_classifier(
    folder: Path, device: str, unsafe_labels: Sequence[str]
) -> Callable[[], SafetyChecker]:
    """Import the folder's model class, and return what loads it. Raises CheckerError."""
    config = _read(folder / "config.json")
    if not any(folder.glob("*.safetensors")):
        raise CheckerError(f"{folder}: holds no .safetensors file, and nothing else is loaded")
    transformers.utils.logging.disable_progress_bar()
    if config.get("architectures") == [_STABLE_DIFFUSION]:
        from diffusers.pipelines.stable_diffusion.safety_checker import (  # noqa: PLC0415
            StableDiffusionSafetyChecker,
        )

        return lambda: StableDiffusionChecker(
            _weights(StableDiffusionSafetyChecker, folder, device), _processor(folder)
        )
    model_class = _class_of(folder, config)
    return lambda: _classifier(model_class, folder, device, unsafe_labels)


def _classifier(
    model_class: Any, folder: Path, device: str, unsafe_labels: Sequence[str]
) -> SafetyChecker:
    model = _weights(model_class, folder, device)
    wanted = {label.lower() for label in unsafe_labels}
    names: dict[int, str] = model.config.id2label
    unsafe = [number for number, name in names.items() if name.lower() in wanted]
    if not unsafe:
        raise CheckerError(
            f"{folder}: none of its labels ({', '.join(names.values())}) counts as unsafe; name "
            "those that do in safety.unsafe_labels"
        )
    return ImageClassifier(model, _processor(folder), unsafe)


def _class_of(folder: Path, config: dict[str, object]) -> Any:
    names = config.get("architectures")
    name = names[0] if isinstance(names, list) and names else None
    known = getattr(transformers, name, None) if isinstance(name, str) else None
    if known is None or not str(name).endswith("ForImageClassification"):
        raise CheckerError(
            f"{folder}: is neither an image classifier that transformers knows nor a "
            f"{_STABLE_DIFFUSION}, but {name}"
        )
    return known


def _weights(model_class: Any, folder: Path, device: str) -> Any:
    try:
        model, report = model_class.from_pretrained(
            str(folder),
            use_safetensors=True,
            local_files_only=True,
            dtype=torch.float32,
            output_loading_info=True,
        )
    except (OSError, ValueError, RuntimeError, SafetensorError) as error:
        raise CheckerError(f"{folder}: {error}") from error
    # transformers makes up what a file lacks; verdicts by chance must not pass for a check.
    if missing := sorted(report["missing_keys"]):
        raise CheckerError(f"{folder}: its weights lack {', '.join(missing[:3])}")
    return model.to(device).eval()


def _processor(folder: Path) -> Any:
    """Return what makes inputs of pictures; in a pipeline's folder it lies beside the checker."""
    beside = folder.parent / "feature_extractor"
    own = (folder / _PROCESSOR).is_file()
    if not own and not (beside / _PROCESSOR).is_file():
        raise CheckerError(
            f"{folder}: {_PROCESSOR} is missing, which says how to show it pictures"
        )
    return transformers.AutoImageProcessor.from_pretrained(
        str(folder if own else beside),
        local_files_only=True,
        trust_remote_code=False,
        backend="pil",
    )


def _inputs(processor: Any, pictures: Sequence[Pixels], device: Any) -> Any:
    inputs = processor(list(pictures), return_tensors="pt", input_data_format="channels_last")
    return inputs.pixel_values.to(device)


def _numbers(values: Any) -> list[float]:
    return [float(value) for value in values.cpu()]


def _read(file: Path) -> dict[str, object]:
    try:
        return msgspec.json.decode(file.read_bytes(), type=dict[str, object])
    except OSError as error:
        raise CheckerError(f"{file}: cannot be read ({error.strerror})") from None
    except (msgspec.DecodeError, UnicodeDecodeError):
        raise CheckerError(f"{file}: is not a JSON object") from None
