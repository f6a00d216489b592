"""The compiled contracts that ship with this package."""

import functools
import json
from dataclasses import dataclass
from importlib.resources import files
from typing import Any, Final

#: In the order in which they are deployed; each but the first two is told where the Controller is. The
#: last, a stand-in for a price feed, is none of Livepeer's, and deployed only by who asks.
NAMES: Final = (
    "Controller",
    "Token",
    "Minter",
    "RoundsManager",
    "BondingManager",
    "TicketBroker",
    "ServiceRegistry",
    "PriceFeed",
)


@dataclass(frozen=True, slots=True)
class Artifact:
    """A contract's interface and the code that creates it, in hex."""

    abi: list[dict[str, Any]]
    bytecode: str


@functools.cache
def artifact(name: str) -> Artifact:
    """The contract `name`, read from its file at the first call: see `load`. Raises KeyError for one that there is not."""
    if name not in NAMES:
        raise KeyError(f"there is no contract {name}; there are {', '.join(NAMES)}")
    text = files("network.devnet").joinpath("artifacts", f"{name}.json").read_text()
    content = json.loads(text)
    return Artifact(content["abi"], content["bytecode"])


def load() -> None:
    """Read every contract now, so that `artifact` does not block an event loop later."""
    for name in NAMES:
        artifact(name)
