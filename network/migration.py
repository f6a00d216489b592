"""A settings file out of go-livepeer's flags: what both roles' tables are made of. Pure.

Which flag becomes what is told in `node.cli.migration` and `gateway.cli.migration`.
"""

import json
import re
import shlex
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Final

from network.livepeer_flags import FlagError, shown, tells_a_key, whole

_BARE: Final = re.compile(r"[A-Za-z0-9_-]+")
_WIDTH: Final = 100
#: From this value of -v on, go-livepeer tells every step.
_VERBOSE: Final = 6
_NETWORKS: Final = {"offchain": "offchain", "arbitrum-one-mainnet": "arbitrum-one"}


@dataclass(slots=True)
class Migration:
    """Settings in the making. What has no counterpart is told in `notes`, what is left to do in `steps`."""

    #: Dotted key to value; a list of mappings becomes an array of tables.
    settings: dict[str, object] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    steps: list[str] = field(default_factory=list)

    def set(self, key: str, value: object) -> None:
        self.settings[key] = value

    def note(self, flag: str, text: str) -> None:
        self.notes.append(f"{flag}: {text}")

    def toml(self, title: str) -> str:
        """The settings file, with its notes and what to do next as comments."""
        parts = [_comment([title])]
        if self.notes:
            parts.append(
                _comment(["Read of the old flags, and not turned into a setting:", *self.notes])
            )
        if self.steps:
            numbered = [f"{number}. {step}" for number, step in enumerate(self.steps, 1)]
            parts.append(_comment(["What is left to do:", *numbered]))
        tables: dict[str, list[str]] = {}
        arrays: list[str] = []
        for key, value in self.settings.items():
            table, _, name = key.rpartition(".")
            if isinstance(value, list) and value and isinstance(value[0], dict):
                arrays += [f"[[{key}]]\n{_lines(entry.items())}" for entry in value]
            else:
                tables.setdefault(table, []).append(f"{_key(name)} = {_value(value)}")
        top = tables.pop("", [])
        if top:
            parts.append("\n".join(top) + "\n")
        parts += [f"[{table}]\n" + "\n".join(lines) + "\n" for table, lines in tables.items()]
        return "\n".join([*parts, *arrays])


#: Sees the value of a flag and all the others, and adds to the migration. Raises ValueError for a value
#: that cannot be used.
Rule = Callable[[Migration, str, Mapping[str, str]], None]


def silent(flag: str, why: str) -> tuple[str, Rule]:
    """A flag that only leaves a word, and whose value is not shown."""

    def rule(made: Migration, value: str, flags: Mapping[str, str]) -> None:
        del value, flags
        made.note(f"-{flag}", why)

    return flag, rule


def translate(
    flags: Mapping[str, str], rules: Mapping[str, tuple[str, Rule]], unknown: str
) -> Migration:
    """Apply a role's rules, by the flag's name in small letters, each with its name as it is written.

    `unknown` is said of flags that there is no rule for. Raises FlagError naming a flag whose value
    cannot be used.
    """
    made = Migration()
    for name, (flag, rule) in rules.items():
        if name not in flags:
            continue
        try:
            rule(made, flags[name], flags)
        except ValueError as error:
            raise FlagError(f"-{flag}: {error}") from None
    for name in flags:
        if name not in rules:
            made.note(f"-{name}", unknown)
    return made


def table_of(*entries: tuple[str, Rule]) -> dict[str, tuple[str, Rule]]:
    """Rules by the flags' names in small letters: go-livepeer's documentation is not sure of them either."""
    return {flag.lower(): (flag, rule) for flag, rule in entries}


def told(flag: str, why: str) -> tuple[str, Rule]:
    """A flag that only leaves a word, with its value where that is no secret."""

    def rule(made: Migration, value: str, _flags: Mapping[str, str]) -> None:
        made.note(f"-{flag} {shown(flag, value)}", why)

    return flag, rule


def quiet(flag: str) -> tuple[str, Rule]:
    """A flag that another one's rule looks at."""
    return flag, lambda _made, _value, _flags: None


def chain_rules(role: str) -> tuple[tuple[str, Rule], ...]:
    """Flags of the chain and of the account, the same for both roles; `role` is "node" or "gateway"."""
    return (
        ("network", _network),
        ("ethUrl", partial(_endpoint, role)),
        ("ethKeystorePath", partial(_keystore, role)),
        ("ethAcctAddr", partial(_account, role)),
        silent(
            "ethPassword",
            f"is never copied; `limner-{role} keystore import` asks for it, and keystore.passphrase_file of the "
            "new settings says what opens the account from now on (docs/keys.md)",
        ),
        told(
            "ethController",
            "Arbitrum One's is built in; contracts of your own need a network.json (docs/devnet.md)",
        ),
        ("blockPollingInterval", _polling),
        ("v", _verbosity),
        told("dataDir", f"~/.limner/{role} is used; never go-livepeer's own folder"),
        silent("monitor", "metrics are always on, at /metrics of admin_listen"),
        silent("metricsPerStream", "is for video"),
        told("config", "give that file to this command, too: --config"),
    )


def _network(made: Migration, value: str, _flags: Mapping[str, str]) -> None:
    if value not in _NETWORKS:
        raise ValueError(f"{value[:40]!r} is not supported; there are {', '.join(_NETWORKS)}")
    made.set("chain.network", _NETWORKS[value])


def _endpoint(role: str, made: Migration, value: str, _flags: Mapping[str, str]) -> None:
    if not tells_a_key(value):
        made.set("chain.rpc", [value])
        return
    made.note("-ethUrl", "seems to hold a key, and was not copied")
    made.steps.append(
        f"Put your -ethUrl into the environment: LIMNER_{role.upper()}__CHAIN__RPC='[\"https://...\"]'. "
        "Name a second endpoint, too: it stands in when the first fails."
    )


def _keystore(role: str, made: Migration, value: str, flags: Mapping[str, str]) -> None:
    account = flags.get("ethacctaddr", "")
    whose = f" of {account}" if account else ""
    source = shlex.quote(value) if value else "KEYSTORE-FILE"
    made.steps.append(
        f"Bring the account{whose}: limner-{role} keystore import {source} (the file, not its folder; it asks "
        "for the passphrase). Stop go-livepeer first: two programs that send transactions for one account "
        "take each other's nonces."
    )


def _account(role: str, made: Migration, value: str, flags: Mapping[str, str]) -> None:
    if "ethkeystorepath" not in flags:
        _keystore(role, made, "", flags)
    made.steps.append(f"limner-{role} address must print {value}.")


def _polling(made: Migration, value: str, _flags: Mapping[str, str]) -> None:
    made.set("chain.poll_seconds", max(1, whole("seconds", value)))


def _verbosity(made: Migration, value: str, _flags: Mapping[str, str]) -> None:
    made.set("log.level", "debug" if whole("levels", value) >= _VERBOSE else "info")


def _lines(items: Iterable[tuple[str, object]]) -> str:
    return "".join(f"{_key(key)} = {_value(value)}\n" for key, value in items)


def _key(name: str) -> str:
    return name if _BARE.fullmatch(name) else _value(name)


def _value(value: object) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int | float):
        return str(value)
    if isinstance(value, list):
        return "[" + ", ".join(_value(one) for one in value) + "]"
    # JSON's strings are TOML's, but for one control character.
    return json.dumps(str(value), ensure_ascii=False).replace("\x7f", "\\u007f")


def _comment(lines: Iterable[str]) -> str:
    return "".join(f"# {part}\n" for line in lines for part in _folded(line))


def _folded(line: str) -> Iterable[str]:
    """Words in lines that can be read; later lines of one stand in a little."""
    row = ""
    for word in "".join(c if c.isprintable() else " " for c in line).split():
        if row and len(row) + 1 + len(word) > _WIDTH:
            yield row
            row = f"  {word}"
        else:
            row = f"{row} {word}" if row else word
    yield row
