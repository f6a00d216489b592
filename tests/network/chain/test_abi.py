"""What we call has the selectors and topics that were published of the network's contracts."""

from pathlib import Path
from typing import Any

import pytest

from network.chain import abi
from network.identity import keccak

PUBLISHED = Path(__file__).parents[1] / "devnet" / "selectors.txt"
SECTIONS = {
    "Controller": "controller",
    "TicketBrokerTarget": "ticket_broker",
    "RoundsManagerTarget": "rounds_manager",
    "BondingManagerTarget": "bonding_manager",
    "ServiceRegistryTarget": "service_registry",
}
#: Of ERC-20, which the published list leaves out.
TOKEN = {
    "approve(address,uint256)": "0x095ea7b3",
    "transfer(address,uint256)": "0xa9059cbb",
    "allowance(address,address)": "0xdd62ed3e",
    "balanceOf(address)": "0x70a08231",
}


def published() -> dict[str, dict[str, str]]:
    """Selector or topic by signature, for each of our files."""
    found: dict[str, dict[str, str]] = {"token": TOKEN}
    section: dict[str, str] = {}
    for line in PUBLISHED.read_text().splitlines():
        if line.startswith("## "):
            section = found.setdefault(SECTIONS.get(line[3:], line), {})
        elif line.startswith(("F|", "E|")):
            _, signature, value, *_ = line.split("|")
            section[signature] = value
    return found


def type_of(parameter: dict[str, Any]) -> str:
    kind = str(parameter["type"])
    if kind.startswith("tuple"):
        inner = ",".join(type_of(part) for part in parameter["components"])
        return f"({inner}){kind.removeprefix('tuple')}"
    return kind


def computed(entry: dict[str, Any]) -> tuple[str, str]:
    signature = f"{entry['name']}({','.join(type_of(given) for given in entry['inputs'])})"
    digest = keccak(signature.encode()).hex()
    return signature, "0x" + (digest if entry["type"] == "event" else digest[:8])


@pytest.mark.parametrize("name", abi.NAMES)
def test_selectors_and_topics_are_the_networks(name: str) -> None:
    entries = abi.load(name)
    assert entries
    for entry in entries:
        signature, value = computed(entry)
        assert published()[name][signature] == value


def test_events_index_what_the_networks_do() -> None:
    """Topics do not tell which arguments are indexed, and reading depends on it."""
    lines = {
        line.split("|")[1]: line.split("|")[3]
        for line in PUBLISHED.read_text().splitlines()
        if line.startswith("E|")
    }
    events = [entry for name in abi.NAMES for entry in abi.load(name) if entry["type"] == "event"]
    assert len(events) > 15
    for event in events:
        arguments = ", ".join(
            f"{given['type']}{' indexed' if given['indexed'] else ''} {given['name']}"
            for given in event["inputs"]
        )
        assert lines[computed(event)[0]] == arguments
