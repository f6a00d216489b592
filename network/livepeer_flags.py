"""go-livepeer's flags as its operators give them. Pure.

They come from a command line, from `LP_...` in the environment, and from a file of "key value" lines
(`-config`); of a flag that is given more than once, go-livepeer takes the first in that order.
"""

import re
import shlex
from collections.abc import Mapping
from pathlib import PurePath
from typing import Final
from urllib.parse import urlsplit

from network.errors import LimnerError

_ENVIRONMENT: Final = "LP_"
_MOST_TEXT: Final = 256 * 1024
_FLAG: Final = re.compile(r"--?([A-Za-z][A-Za-z0-9_]{0,63})(?:=(.*))?", re.DOTALL)
#: The program itself, or its image: a command line of Docker's has options of Docker's before it.
_PROGRAM: Final = re.compile(r"(go-)?livepeer(:[\w.-]+)?")
#: Flags that take no value of their own; "-reward=false" is one word.
_SWITCHES: Final = frozenset(
    {
        *(
            "orchestrator",
            "gateway",
            "broadcaster",
            "transcoder",
            "redeemer",
            "aiworker",
            "monitor",
        ),
        *("metricsperstream", "reward", "initializeround", "startupavailabilitycheck", "version"),
        *("aiserviceregistry", "autoadjustprice", "aiverboselogs", "useliverunners", "httpingest"),
        *("ignoremaxpriceifneeded", "remotesigner", "remotediscovery", "remotesignerallownoauth"),
    }
)
#: Values of these are never shown and never written, whoever asks.
_SECRETS: Final = re.compile(r"password|secret|header|token|apikey", re.IGNORECASE)


class FlagError(LimnerError):
    """Flags that cannot be read; the message says where."""


def flags_of_command(text: str) -> dict[str, str]:
    """Flags by their names in small letters, from a shell's command line. Raises FlagError."""
    _bounded(text)
    try:
        words = shlex.split(text.replace("\\\n", " "), comments=False)
    except ValueError as error:
        raise FlagError(f"the command line cannot be read: {error}") from None
    programs = [at for at, word in enumerate(words) if _PROGRAM.fullmatch(PurePath(word).name)]
    words = words[programs[0] + 1 :] if programs else words
    found: dict[str, str] = {}
    waiting = ""
    for number, word in enumerate(words, 1):
        flag = _FLAG.fullmatch(word)
        if flag is None:
            if not waiting:
                # The word itself may be a part of a secret.
                raise FlagError(f"word {number} belongs to no flag; flags look like -name value")
            found[waiting], waiting = word, ""
            continue
        name, value = flag[1].lower(), flag[2]
        found[name] = "true" if value is None else value
        waiting = name if value is None and name not in _SWITCHES else ""
    return found


def flags_of_file(text: str) -> dict[str, str]:
    """Flags from the "key value" lines of `-config`; "#" begins a comment. Raises FlagError."""
    _bounded(text)
    found: dict[str, str] = {}
    for number, line in enumerate(text.splitlines(), 1):
        words = line.split("#", 1)[0].split(None, 1)
        if not words:
            continue
        flag = _FLAG.fullmatch(f"-{words[0].lstrip('-')}")
        if flag is None or flag[2] is not None:
            raise FlagError(f"line {number}: {words[0][:40]!r} is no flag; lines are: key value")
        found[flag[1].lower()] = words[1].strip() if len(words) > 1 else "true"
    return found


def flags_of_environment(environment: Mapping[str, str]) -> dict[str, str]:
    """Flags from `LP_<FLAG>`."""
    return {
        name.removeprefix(_ENVIRONMENT).replace("_", "").lower(): value
        for name, value in sorted(environment.items())
        if name.startswith(_ENVIRONMENT) and name != _ENVIRONMENT
    }


def is_on(flags: Mapping[str, str], name: str, *, default: bool = False) -> bool:
    """A switch, as Go reads it."""
    value = flags.get(name)
    return default if value is None else value.lower() in {"1", "t", "true"}


def _bounded(text: str) -> None:
    if len(text) > _MOST_TEXT:
        raise FlagError(f"more than {_MOST_TEXT} characters of flags")


def whole(unit: str, value: str) -> int:
    """A whole number of `unit`. Raises ValueError."""
    if not value.isascii() or not value.isdecimal() or len(value) > 40:  # noqa: PLR2004
        raise ValueError(f"{value[:40]!r} is not a whole number of {unit}")
    return int(value)


def shown(name: str, value: str) -> str:
    """A flag's value for people; what may be a secret is not told."""
    return "..." if _SECRETS.search(name) or tells_a_key(value) else value


def host_and_port(value: str, port: int) -> tuple[str, int]:
    """The two parts of "host:port", ":port" or "host"; `port` is the default. Raises ValueError."""
    text = value if "//" in value else f"//{value}"
    try:
        url = urlsplit(text)
        given = url.port
    except ValueError:
        raise ValueError(f"{value[:60]!r} is no host:port") from None
    return url.hostname or "", port if given is None else given


def joined(host: str, port: int) -> str:
    """The counterpart of `host_and_port`."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def tells_a_key(value: str) -> bool:
    """Tell whether `value` is a URL with more than a host in it: providers put keys there."""
    try:
        url = urlsplit(value)
    except ValueError:
        return True
    if url.scheme not in {"http", "https", "ws", "wss"}:
        return False
    return bool(
        url.username or url.password or url.query or url.path.strip("/") not in {"", "rpc"}
    )
