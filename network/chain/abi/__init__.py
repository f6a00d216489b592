"""The parts of Livepeer's contract interfaces that are called, one file a contract."""

import json
from importlib import resources
from typing import Any, Final

NAMES: Final = (
    "controller",
    "ticket_broker",
    "rounds_manager",
    "bonding_manager",
    "service_registry",
    "token",
)


def load(name: str) -> list[dict[str, Any]]:
    """The ABI of one of `NAMES`. Reads a file: not on an event loop."""
    text = resources.files(__name__).joinpath(f"{name}.json").read_text()
    entries: list[dict[str, Any]] = json.loads(text)
    return entries
