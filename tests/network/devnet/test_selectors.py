"""Our contracts have the network's functions and events, byte for byte of their selectors and topics."""

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


def published(name: str) -> dict[str, tuple[str, str, str]]:
    """By signature: kind, selector or topic, and the events' arguments."""
    found, inside = {}, False
    for line in PUBLISHED.read_text().splitlines():
        if line.startswith("## "):
            inside = line[3:].split()[0] == name
        elif inside and line[:2] in {"E|", "F|"}:
            kind, text, code, arguments = line.split("|")[:4]
            found[text] = kind, code, arguments
    assert found, f"nothing is known of {name}"
    return found


@pytest.mark.parametrize("name", CONTRACTS)
def test_selectors_topics_and_indexing_are_the_networks(name: str) -> None:
    ours, left_out = CONTRACTS[name]
    here = {signature(e): e for e in artifact(ours).abi if e["type"] in {"function", "event"}}
    theirs = published(name)
    for text, (kind, code, arguments) in theirs.items():
        short = text.partition("(")[0]
        needed = short in NEEDED[ours] if left_out is None else short not in left_out
        if text not in here:
            assert not needed, f"{ours} lacks {text}"
            continue
        entry = here[text]
        digest = "0x" + keccak(signature(entry).encode()).hex()
        assert (digest if kind == "E" else digest[:10]) == code, text
        if kind == "E":
            indexing = [" indexed " in f" {one.strip()} " for one in arguments.split(",")]
            assert [one["indexed"] for one in entry["inputs"]] == indexing[: len(entry["inputs"])]


def test_what_is_needed_is_there() -> None:
    for name, needed in NEEDED.items():
        assert needed <= {entry.get("name") for entry in artifact(name).abi}, name
