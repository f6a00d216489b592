"""File, then environment, then flags; and errors an operator can act on."""

from collections.abc import Mapping
from fractions import Fraction
from pathlib import Path

import pytest
from pydantic import Field, SecretStr

from network.errors import ConfigError
from network.runtime.settings import PriceSetting, Settings, load


class Model(Settings):
    path: str
    warm: bool = True


class Keystore(Settings):
    passphrase: SecretStr = SecretStr("")
    directory: str = "keys"


class Example(Settings):
    listen: str = "http://127.0.0.1:8936"
    port: int = 1
    price: PriceSetting = Fraction(5)
    keystore: Keystore = Keystore()
    models: Mapping[str, Model] = Field(default_factory=dict)
    allow: tuple[str, ...] = ()


def written(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "node.toml"
    path.write_text(text)
    return path


def loaded(
    path: Path | None = None, environment: dict[str, str] | None = None, **flags: object
) -> Example:
    return load(Example, path, "LIMNER_TEST__", flags, environment or {})


def test_without_anything_the_defaults_hold() -> None:
    assert loaded() == Example()


def test_the_environment_beats_the_file_and_flags_beat_both(tmp_path: Path) -> None:
    path = written(tmp_path, 'listen = "file"\nport = 2\n[keystore]\ndirectory = "file"\n')
    environment = {"LIMNER_TEST__LISTEN": "env", "LIMNER_TEST__KEYSTORE__DIRECTORY": "env"}
    settings = load(Example, path, "LIMNER_TEST__", {"listen": "flag", "port": None}, environment)
    assert (settings.listen, settings.port, settings.keystore.directory) == ("flag", 2, "env")


def test_flags_reach_into_tables_by_a_dotted_key() -> None:
    settings = load(Example, None, "X__", {"keystore.directory": "flag"}, {})
    assert settings.keystore.directory == "flag"


def test_lists_and_tables_in_the_environment_are_json() -> None:
    environment = {
        "LIMNER_TEST__ALLOW": '["a","b"]',
        "LIMNER_TEST__MODELS": '{"limner/shapes": {"path": "x"}}',
        "LIMNER_TEST__PORT": "9",
        "OTHER__PORT": "10",
    }
    settings = loaded(environment=environment)
    assert settings.allow == ("a", "b")
    assert settings.models["limner/shapes"].path == "x"
    assert settings.port == 9


@pytest.mark.parametrize(
    ("text", "price"), [('"7/2"', Fraction(7, 2)), ("4768371", Fraction(4768371))]
)
def test_a_price_is_text_or_a_whole_number(tmp_path: Path, text: str, price: Fraction) -> None:
    assert loaded(written(tmp_path, f"price = {text}")).price == price


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("prot = 1", ["prot: no such setting", "node.toml", "did you mean 'port'?", "listen"]),
        ("[keystore]\ndirectry = 'x'", ["keystore.directry", "'directory'", "passphrase"]),
        ("[models.a]\npath = 'x'\nwram = true", ["models.a.wram", "did you mean 'warm'?"]),
        ("port = 'many'", ["port: 'many'", "node.toml", "valid integer"]),
        ("price = 0.1", ["price: 0.1", 'write the price in quotes: "0.1"']),
        ("price = 'dear'", ["price: 'dear'", "is not a price", "5 gwei"]),
        ("[models.a]\nwarm = true", ["models.a.path", "is required"]),
        ("port = x", ["node.toml is not valid TOML", "line 1"]),
        ("keystore = 5", ["keystore: 5", "node.toml"]),
    ],
)
def test_a_wrong_setting_names_key_value_file_and_remedy(
    tmp_path: Path, text: str, parts: list[str]
) -> None:
    with pytest.raises(ConfigError) as raised:
        loaded(written(tmp_path, text))
    for part in parts:
        assert part in str(raised.value)


def test_a_wrong_variable_is_named(tmp_path: Path) -> None:
    path = written(tmp_path, "port = 1")
    with pytest.raises(ConfigError, match=r"port: 'x' in the environment, LIMNER_TEST__PORT"):
        loaded(path, {"LIMNER_TEST__PORT": "x"})
    with pytest.raises(ConfigError, match=r"nothing: no such setting .*LIMNER_TEST__NOTHING"):
        loaded(path, {"LIMNER_TEST__NOTHING": "x"})
    with pytest.raises(ConfigError, match="LIMNER_TEST__ALLOW: is not valid JSON"):
        loaded(path, {"LIMNER_TEST__ALLOW": "[a"})
    with pytest.raises(ConfigError, match="is a value, not a table"):
        loaded(path, {"LIMNER_TEST__PORT__X": "1"})


def test_a_wrong_flag_is_named() -> None:
    with pytest.raises(ConfigError, match="port: 'x' given as a flag"):
        loaded(port="x")


def test_a_secret_is_not_shown_in_an_error(tmp_path: Path) -> None:
    path = written(tmp_path, "[keystore]\npassphrase = 12345\n")
    with pytest.raises(ConfigError) as raised:
        loaded(path)
    assert "12345" not in str(raised.value)
    assert "keystore.passphrase" in str(raised.value)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"cannot read .*none\.toml"):
        loaded(tmp_path / "none.toml")
