"""The secret that callers of a runner have to show."""

import hmac
import secrets
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import structlog

from network.errors import ConfigError
from network.runtime.secret_file import is_open_to_others, write_secret
from node.config.settings import ContainerSettings, is_loopback

_MADE_BYTES: Final = 32
_MOST_BYTES: Final = 1024
_KEY: Final = "container.token_file"

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Token:
    """The token, empty for none, and the file it came from. `is_new`: made at this start."""

    value: str = field(default="", repr=False)
    path: Path | None = None
    is_new: bool = False

    def opens_to(self, authorization: str | None) -> bool:
        """Tell whether an `Authorization` header shows the token, or nothing has to be shown.

        Takes as long whatever is wrong with it: a token cannot be guessed letter by letter.
        """
        if not self.value:
            return True
        scheme, _, shown = (authorization or "").partition(" ")
        # What is no UTF-8 arrives in surrogates.
        given = shown.strip().encode("utf-8", "surrogateescape")
        is_same = hmac.compare_digest(given, self.value.encode())
        return is_same and scheme.lower() == "bearer"


def open_token(settings: ContainerSettings) -> Token:
    """Return the token of the settings, making the file they name if there is none. Blocks.

    Raises ConfigError.
    """
    path = settings.token_file
    if path is None:
        return Token(settings.token)
    if settings.token:
        raise ConfigError(
            _KEY, "a token is given as well (container.token, AUTH_TOKEN); keep one of the two"
        )
    try:
        return Token(_read(path), path)
    except FileNotFoundError:
        return Token(_make(path), path, is_new=True)
    except OSError as error:
        raise ConfigError(_KEY, f"cannot read {path}: {error.strerror}") from error


def check_exposure(settings: ContainerSettings, token: Token) -> None:
    """Raise ConfigError where anybody could have work done who reaches the runner."""
    host = settings.listen.rpartition(":")[0].strip("[]")
    if token.value or settings.open or is_loopback(host):
        return
    raise ConfigError(
        "container.listen",
        f"{settings.listen} can be reached by others, and nothing is asked of them. Name a token "
        "file (--token-file FILE makes one), listen on 127.0.0.1, or start with --open to serve "
        "anybody who gets there",
    )


def _read(path: Path) -> str:
    with path.open("rb") as file:
        content = file.read(_MOST_BYTES + 1).strip()
    if not content:
        raise ConfigError(_KEY, f"{path} is empty")
    if len(content) > _MOST_BYTES or not all(0x21 <= byte <= 0x7E for byte in content):  # noqa: PLR2004
        raise ConfigError(
            _KEY, f"{path} has to hold one line of at most {_MOST_BYTES} visible ASCII characters"
        )
    if is_open_to_others(path):
        log.warning("token file is open to others", file=str(path), advice="chmod 600")
    return content.decode()


def _make(path: Path) -> str:
    made = secrets.token_urlsafe(_MADE_BYTES)
    try:
        write_secret(path, f"{made}\n".encode())
    except OSError as error:
        raise ConfigError(_KEY, f"cannot write {path}: {error.strerror}") from error
    return made
