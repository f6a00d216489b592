"""What a receipt or a range of blocks says happened: hints to read the state again.

Nodes limit how many blocks or events one question may cover, each in its own way, so a range is
asked in pieces that are halved for as long as the node refuses.
"""

from collections.abc import AsyncIterator, Sequence
from typing import TYPE_CHECKING, Any, Final

import orjson

from network.chain.deployment import Deployment
from network.chain.endpoint import quantity
from network.chain.model import ChainUnavailableError, Log, Payout, Receipt, RefusedError
from network.chain.rpc import Rpc
from network.identity import checksum, parse_address
from network.payments.tickets import CreationRound, Ticket, rand_hash
from network.units import Address, Wei

if TYPE_CHECKING:
    from web3.contract.async_contract import AsyncContractEvent

#: Blocks of one question, as go-livepeer asks.
PIECE: Final = 1000
_WORD: Final = 32
_ADDRESS: Final = 20

Topics = Sequence[bytes | None]


async def logs_between(
    rpc: Rpc, address: Address, topics: Topics, first: int, last: int, *, piece: int = PIECE
) -> AsyncIterator[Log]:
    """Events of `address` in the blocks `first` to `last`, both included, in their order.

    None as a topic means any. Raises ChainError; what was given until then stands.
    """
    start = first
    while start <= last:
        end = min(last, start + piece - 1)
        try:
            found = await _logs(rpc, address, topics, start, end)
        except RefusedError:
            if start == end:
                raise
            piece = (end - start + 1) // 2
            continue
        for log in found:
            yield log
        start = end + 1


async def _logs(rpc: Rpc, address: Address, topics: Topics, first: int, last: int) -> list[Log]:
    question = {
        "address": checksum(address),
        "topics": [None if topic is None else "0x" + topic.hex() for topic in topics],
        "fromBlock": hex(first),
        "toBlock": hex(last),
    }
    answer = await rpc.request("eth_getLogs", (question,))
    if not isinstance(answer, list):
        raise ChainUnavailableError("an endpoint gave no list of events")
    return [parse_log(entry) for entry in answer]


def payouts_of(deployment: Deployment, logs: Sequence[Log]) -> tuple[Payout, ...]:
    """Every ticket that was redeemed in `logs`, with the amount that it moved, 0 included.

    The TicketBroker says what it transferred (nothing, if it paid nothing), then which ticket that
    was for. The face value says nothing about the amount.
    """
    transferred = deployment.broker.events.WinningTicketTransfer()
    redeemed = deployment.broker.events.WinningTicketRedeemed()
    broker = parse_address(deployment.broker.address)
    amount = 0
    found: list[Payout] = []
    for log in logs:
        if log.address != broker or not log.topics:
            continue
        if log.topics[0] == _topic(transferred):
            amount = int(_arguments(transferred, log)["amount"])
        elif log.topics[0] == _topic(redeemed):
            ticket = _ticket(_arguments(redeemed, log))
            found.append(
                Payout(
                    ticket_hash=ticket.hash,
                    amount=Wei(amount),
                    transaction_hash=log.transaction_hash,
                    block_number=log.block_number,
                )
            )
            amount = 0
    return tuple(found)


def payout_topics(deployment: Deployment, recipient: Address) -> Topics:
    """Topics of WinningTicketRedeemed for one recipient."""
    redeemed = deployment.broker.events.WinningTicketRedeemed()
    return (_topic(redeemed), None, bytes(_WORD - _ADDRESS) + recipient)


def parse_receipt(answer: dict[str, Any]) -> Receipt:
    """A receipt as JSON-RPC has it."""
    return Receipt(
        transaction_hash=_bytes(answer["transactionHash"]),
        block_number=quantity(answer["blockNumber"]),
        block_hash=_bytes(answer["blockHash"]),
        is_successful=quantity(answer["status"]) == 1,
        gas_used=quantity(answer["gasUsed"]),
        gas_price=Wei(quantity(answer["effectiveGasPrice"])),
        logs=tuple(parse_log(entry) for entry in answer["logs"]),
    )


def receipt_json(receipt: Receipt) -> bytes:
    """What `parse_receipt` reads back."""
    logs = [
        {
            "address": checksum(log.address),
            "topics": ["0x" + topic.hex() for topic in log.topics],
            "data": "0x" + log.data.hex(),
            "blockNumber": hex(log.block_number),
            "transactionHash": "0x" + log.transaction_hash.hex(),
            "logIndex": hex(log.index),
        }
        for log in receipt.logs
    ]
    return orjson.dumps(
        {
            "transactionHash": "0x" + receipt.transaction_hash.hex(),
            "blockNumber": hex(receipt.block_number),
            "blockHash": "0x" + receipt.block_hash.hex(),
            "status": hex(receipt.is_successful),
            "gasUsed": hex(receipt.gas_used),
            "effectiveGasPrice": hex(receipt.gas_price),
            "logs": logs,
        }
    )


def parse_log(answer: dict[str, Any]) -> Log:
    """An event as JSON-RPC has it."""
    return Log(
        address=parse_address(answer["address"]),
        topics=tuple(_bytes(topic) for topic in answer["topics"]),
        data=_bytes(answer["data"]),
        block_number=quantity(answer["blockNumber"]),
        transaction_hash=_bytes(answer["transactionHash"]),
        index=quantity(answer["logIndex"]),
    )


def _topic(event: "AsyncContractEvent") -> bytes:
    return _bytes(event.topic)


def _arguments(event: "AsyncContractEvent", log: Log) -> dict[str, Any]:
    """The event's own decoding, of the log as web3 would have read it."""
    decoded = event.process_log(
        {
            "address": checksum(log.address),
            "topics": list(log.topics),
            "data": log.data,
            "blockNumber": log.block_number,
            "transactionHash": log.transaction_hash,
            "transactionIndex": 0,
            "blockHash": bytes(_WORD),
            "logIndex": log.index,
        }
    )
    return dict(decoded["args"])


def _ticket(arguments: dict[str, Any]) -> Ticket:
    aux = bytes(arguments["auxData"])
    return Ticket(
        recipient=parse_address(arguments["recipient"]),
        sender=parse_address(arguments["sender"]),
        face_value=Wei(arguments["faceValue"]),
        win_prob=arguments["winProb"],
        sender_nonce=arguments["senderNonce"],
        recipient_rand_hash=rand_hash(arguments["recipientRand"]),
        creation=CreationRound(int.from_bytes(aux[:_WORD], "big"), aux[_WORD:]),
    )


def _bytes(text: object) -> bytes:
    return bytes.fromhex(str(text).removeprefix("0x"))
