"""Our contracts have the network's functions and events, byte for byte of their selectors and topics."""

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from network.devnet.artifacts import artifact
from network.identity import keccak

#: As the network's deployed contracts have them: `kind|signature|selector or topic|...`.
PUBLISHED = Path(__file__).with_name("selectors.txt")
#: Name there, name here, and what of it a development chain leaves out.
CONTRACTS = {
    "Controller": ("Controller", {"transferOwnership", "updateController"}),
    "TicketBrokerTarget": ("TicketBroker", {"targetContractId"}),
    "RoundsManagerTarget": (
        "RoundsManager",
        {"lipUpgradeRound", "setLIPUpgradeRound", "targetContractId"},
    ),
    "BondingManagerTarget": ("BondingManager", None),
    "ServiceRegistryTarget": ("ServiceRegistry", {"targetContractId"}),
    "Minter": ("Minter", None),
}
#: What nodes and gateways call of the two of which only a part is here.
NEEDED = {
    "BondingManager": {
        "bond", "unbond", "withdrawStake", "transcoder", "reward", "withdrawFees",
        "pendingFees", "pendingStake", "isActiveTranscoder", "isRegisteredTranscoder",
        "transcoderStatus", "transcoderTotalStake", "delegatorStatus", "getTranscoder",
        "getDelegator", "getDelegatorUnbondingLock", "getFirstTranscoderInPool",
        "getNextTranscoderInPool", "getTranscoderPoolSize", "getTranscoderPoolMaxSize",
        "getTotalBonded", "unbondingPeriod", "updateTranscoderWithFees",
        "setCurrentRoundTotalActiveStake", "currentRoundTotalActiveStake",
        "Bond", "Unbond", "TranscoderUpdate", "TranscoderActivated", "TranscoderDeactivated",
        "Reward", "WithdrawFees", "WithdrawStake",
    },
    "Minter": {"depositETH", "trustedWithdrawETH"},
}  # fmt: skip


def type_of(parameter: dict[str, Any]) -> str:
    if not parameter["type"].startswith("tuple"):
        return str(parameter["type"])
    inner = ",".join(type_of(part) for part in parameter["components"])
    return f"({inner}){parameter['type'].removeprefix('tuple')}"


def signature(entry: dict[str, Any]) -> str:
    return f"{entry['name']}({','.join(type_of(one) for one in entry['inputs'])})"


@dataclass(frozen=True, slots=True)
class Entry:
    """A line of the published list. Functions have mutability and outputs, events have arguments."""

    kind: str
    code: str
    mutability: str = ""
    outputs: str = ""
    arguments: str = ""


def published(name: str) -> dict[str, Entry]:
    """By signature."""
    found, inside = {}, False
    for line in PUBLISHED.read_text().splitlines():
        kind, _, rest = line.partition("|")
        if line.startswith("## "):
            inside = line[3:].split()[0] == name
        elif inside and kind == "F":
            text, code, mutability, outputs, _ = rest.split("|")
            found[text] = Entry(kind, code, mutability, re.sub(r" \w+", "", outputs))
        elif inside and kind == "E":
            text, code, arguments = rest.split("|")
            found[text] = Entry(kind, code, arguments=arguments.replace(", ", ","))
    assert found, f"nothing is known of {name}"
    return found


def argument(entry: dict[str, Any]) -> str:
    indexed = " indexed" if entry["indexed"] else ""
    return f"{entry['type']}{indexed} {entry['name']}"


@pytest.mark.parametrize("name", CONTRACTS)
def test_selectors_topics_and_indexing_are_the_networks(name: str) -> None:
    ours, left_out = CONTRACTS[name]
    here = {signature(e): e for e in artifact(ours).abi if e["type"] in {"function", "event"}}
    for text, theirs in published(name).items():
        short = text.partition("(")[0]
        needed = short in NEEDED[ours] if left_out is None else short not in left_out
        if text not in here:
            assert not needed, f"{ours} lacks {text}"
            continue
        entry = here[text]
        digest = "0x" + keccak(text.encode()).hex()
        if theirs.kind == "E":
            assert entry["type"] == "event"
            assert digest == theirs.code
            assert ",".join(argument(one) for one in entry["inputs"]) == theirs.arguments
        else:
            assert entry["type"] == "function"
            assert digest[:10] == theirs.code
            outputs = ",".join(type_of(one) for one in entry["outputs"])
            assert (entry["stateMutability"], outputs) == (theirs.mutability, theirs.outputs), text


def test_what_is_needed_is_there() -> None:
    for name, needed in NEEDED.items():
        assert needed <= {entry.get("name") for entry in artifact(name).abi}, name
