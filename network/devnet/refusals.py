"""What a chain in this process refuses, in the words and codes that Ethereum's nodes use.

Clients act on them: on "nonce too low" they count anew, on code 3 they read why a contract refused.
"""

import ast
import re
from collections.abc import Mapping
from typing import Any, Final

from eth_abi.abi import encode

_REVERTED: Final = 3
_FAILED: Final = -32000
_LONGEST: Final = 500
#: The selector of Error(string).
_ERROR_STRING: Final = bytes.fromhex("08c379a0")
#: py-evm's words, and a node's.
_NONCE: Final = re.compile(
    r"Invalid transaction nonce: Expected (?P<next>\d+), but got (?P<given>\d+)"
)
_POOR: Final = re.compile(r"does not have enough balance")


def refusal(error: Exception) -> Mapping[str, Any]:
    """The `error` of a JSON-RPC answer. Reverts carry what the contract returned as `data`."""
    message = str(error) or type(error).__name__
    returned = getattr(error, "data", None)
    if isinstance(returned, str):  # web3's own exceptions, a panic's among them
        return _revert(message, returned)
    _, is_revert, reason = message.partition("execution reverted")
    if is_revert:
        reason = reason.removeprefix(": ")
        raw = _raw(reason)
        if raw is None:
            raw = _ERROR_STRING + encode(["string"], [reason])
            return _revert(reason, "0x" + raw.hex())
        return _revert("", "0x" + raw.hex())
    return {"code": _FAILED, "message": _in_a_nodes_words(message)[:_LONGEST]}


def _revert(reason: str, data: str) -> Mapping[str, Any]:
    message = f"execution reverted: {reason}" if reason else "execution reverted"
    return {"code": _REVERTED, "message": message[:_LONGEST], "data": data}


def _raw(reason: str) -> bytes | None:
    """The bytes of a revert that is no text: eth-tester hands them on as Python writes them."""
    if not reason.startswith(("b'", 'b"')):
        return None
    try:
        raw = ast.literal_eval(reason)
    except (SyntaxError, ValueError):
        return None
    return raw if isinstance(raw, bytes) else None


def _in_a_nodes_words(message: str) -> str:
    nonce = _NONCE.search(message)
    if nonce is not None:
        low = int(nonce["given"]) < int(nonce["next"])
        order = "low" if low else "high"
        return f"nonce too {order}: next nonce {nonce['next']}, tx nonce {nonce['given']}"
    if _POOR.search(message):
        return f"insufficient funds for gas * price + value: {message}"
    return message
