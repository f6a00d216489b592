"""The secret behind every quote, in the data directory, and the chain that it is for.

Kept across restarts, so that quotes outlive them; the nonces that were seen are kept with the journal.
"""

import secrets
from pathlib import Path
from typing import Annotated, Final

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from network.errors import ConfigError
from network.payments.rand import SECRET_BYTES
from network.runtime.secret_file import write_secret

_FILE: Final = "ticket-secret.json"
_HEX: Final = f"^[0-9a-f]{{{2 * SECRET_BYTES}}}$"


class _Content(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)

    chain_id: int
    secret: Annotated[str, Field(pattern=_HEX, repr=False)]


def ticket_secret(data_dir: Path, chain_id: int) -> bytes:
    """Return the secret; make it at the first start. Blocks.

    Raises ConfigError for a directory that was used on another chain: neither its account nor the
    credit in its journal is to be used on two.
    """
    path = data_dir / _FILE
    try:
        text = path.read_bytes()
    except FileNotFoundError:
        return _made(path, chain_id)
    except OSError as error:
        raise ConfigError("data_dir", f"cannot read {path}: {error.strerror}") from error
    try:
        content = _Content.model_validate_json(text)
    except ValidationError:
        raise ConfigError(
            "data_dir", f"{path} is damaged; delete it, and quotes that are under way end"
        ) from None
    if content.chain_id != chain_id:
        raise ConfigError(
            "data_dir",
            f"{data_dir} has the account and the payments of chain {content.chain_id}, and "
            f"chain.network is chain {chain_id}; give each chain a data directory of its own",
        )
    return bytes.fromhex(content.secret)


def _made(path: Path, chain_id: int) -> bytes:
    secret = secrets.token_bytes(SECRET_BYTES)
    content = _Content(chain_id=chain_id, secret=secret.hex())
    try:
        write_secret(path, content.model_dump_json().encode(), replace=True)
    except OSError as error:
        raise ConfigError("data_dir", f"cannot write {path}: {error.strerror}") from error
    return secret
