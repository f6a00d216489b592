"""From the operator's options to a checker."""

from collections.abc import Callable
from pathlib import Path

from node.engine.options import OPEN_NSFW, SafetyOptions
from node.engine.safety import CheckerError, SafetyChecker


def prepare_checker(options: SafetyOptions, device: str) -> Callable[[], SafetyChecker]:
    """Import what the checker needs, and return what loads it, which another thread may call.

    Importing is left to the caller's thread: two threads that import parts of transformers at
    once may see each other's half-imported modules. `device` is the engine's, as torch names it;
    "auto" follows it. Raises CheckerError, as the loading does.
    """
    wanted = device if options.device == "auto" else options.device
    try:
        if options.checker == OPEN_NSFW:
            from node.engine.checkers.opennsfw import prepare_opennsfw  # noqa: PLC0415  heavy

            return prepare_opennsfw(wanted, required=options.device != "auto")
        from node.engine.checkers.classifier import prepare_classifier  # noqa: PLC0415  heavy

        return prepare_classifier(Path(options.checker), wanted, options.unsafe_labels)
    except ImportError as error:
        raise CheckerError(f"the checker {options.name} needs a package: {error}") from error
