"""Published tickets: three made for this purpose and one that Arbitrum One has redeemed."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from network.identity import parse_address
from network.payments.tickets import CreationRound, Ticket
from network.units import Wei

_FILE = Path(__file__).with_name("tickets.json")


@dataclass(frozen=True, slots=True)
class Vector:
    """A ticket with what is known of it; `key` is empty where only its owner knows it."""

    ticket: Ticket
    key: bytes
    signature: bytes
    recipient_rand: int
    hash: bytes
    win_value: int


def golden() -> list[Vector]:
    return [
        Vector(
            ticket=Ticket(
                recipient=parse_address(one["recipient"]),
                sender=parse_address(one["sender"]),
                face_value=Wei(int(one["face_value"])),
                win_prob=int(one["win_prob"]),
                sender_nonce=one["sender_nonce"],
                recipient_rand_hash=_bytes(one["recipient_rand_hash"]),
                creation=CreationRound(
                    one["creation_round"], _bytes(one["creation_round_block_hash"])
                ),
            ),
            key=_bytes(one["sender_key"]),
            signature=_bytes(one["signature"]),
            recipient_rand=int(one["recipient_rand"]),
            hash=_bytes(one["ticket_hash"]),
            win_value=int(one["win_value"], 16),
        )
        for one in _content()["golden"]
    ]


def redeemed() -> list[Vector]:
    found = []
    for one in _content()["mainnet"]:
        recipient, sender, face_value, win_prob, nonce, rand_hash, aux = one["ticket"]
        data = _bytes(aux)
        ticket = Ticket(
            recipient=parse_address(recipient),
            sender=parse_address(sender),
            face_value=Wei(face_value),
            win_prob=win_prob,
            sender_nonce=nonce,
            recipient_rand_hash=_bytes(rand_hash),
            creation=CreationRound(int.from_bytes(data[:32], "big"), data[32:]),
        )
        found.append(
            Vector(
                ticket,
                b"",
                _bytes(one["sig"]),
                int(one["rand"]),
                _bytes(one["hash"]),
                int(one["win_value"], 16),
            )
        )
    return found


def _content() -> Any:
    return json.loads(_FILE.read_text())


def _bytes(text: str) -> bytes:
    return bytes.fromhex(text.removeprefix("0x"))
