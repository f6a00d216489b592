"""The error tree of what both roles share, named by what the catcher should do.

LimnerError
|-- ConfigError           the operator's to mend: a setting is wrong; stop and say which
|-- WireError             the peer sent bytes that break the protocol; refuse them
|   `-- SignatureError    a signature that does not prove what it claims
|-- ProblemError          an edge's answer to a client, already in the client's words
`-- DatabaseError         a write or read did not happen; nothing was half done
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

import orjson

JSON_TYPE: Final = "application/json"
_UNPROCESSABLE: Final = 422


class LimnerError(Exception):
    """Whatever this project raises on purpose."""


class ConfigError(LimnerError):
    """A setting cannot be used."""

    def __init__(self, key: str, problem: str) -> None:
        """`key` is the dotted setting, "" for a whole file; `problem` says what to do."""
        super().__init__(f"{key}: {problem}" if key else problem)
        self.key = key
        self.problem = problem


class WireError(LimnerError):
    """A peer's bytes break the protocol; the message may be sent back to it."""


class SignatureError(WireError):
    """A signature is malformed or made by somebody else."""


class DatabaseError(LimnerError):
    """The database refused or is closed; the append or read named did not happen."""


@dataclass(frozen=True, slots=True)
class FieldFault:
    """One wrong field of a body, as FastAPI reports it."""

    loc: tuple[str | int, ...]
    message: str
    type: str


@dataclass(frozen=True, slots=True)
class Problem:
    """An error answer that every official client parses.

    `detail` serves Livepeer's clients, `error` those of OpenAI; `message` is the true reason.
    """

    status: int
    message: str
    type: str
    code: str
    param: str | None = None
    fields: tuple[FieldFault, ...] = ()
    headers: Mapping[str, str] = field(default_factory=dict)

    def body(self) -> bytes:
        """The JSON body; its content type is `JSON_TYPE`."""
        detail: object = {"msg": self.message}
        if self.status == _UNPROCESSABLE:
            detail = [{"loc": f.loc, "msg": f.message, "type": f.type} for f in self.fields]
        error = {
            "message": self.message,
            "type": self.type,
            "code": self.code,
            "param": self.param,
        }
        return orjson.dumps({"detail": detail, "error": error})


class ProblemError(LimnerError):
    """Raised by an edge to answer its client with `problem`."""

    def __init__(self, problem: Problem) -> None:
        super().__init__(problem.message)
        self.problem = problem
