"""Settings: defaults that stand in the file, and errors that name what is wrong."""

import re
import tomllib
from fractions import Fraction
from pathlib import Path

import pytest

from gateway.config import GatewaySettings
from network.errors import ConfigError
from network.runtime.settings import load

FILE = Path(__file__).resolve().parents[2] / "configs" / "gateway.toml"
PREFIX = "LIMNER_GATEWAY__"


def test_the_file_states_exactly_the_defaults() -> None:
    assert load(GatewaySettings, FILE, PREFIX, {}, {}) == GatewaySettings()


def test_the_file_mentions_every_setting() -> None:
    text = FILE.read_text()
    for name, field in GatewaySettings.model_fields.items():
        assert name in text
        inner = getattr(field.annotation, "model_fields", {})
        shown = [key for key in inner if f"{key} = " in text or f"[{name}.{key}]" in text]
        assert shown == list(inner)


def test_the_examples_in_the_file_can_be_used() -> None:
    # An example is a line of prose that TOML can read; the file's other comments are none.
    shown = re.sub(r"(?m)^# (?=\[\[|[a-z_]+ = )", "", FILE.read_text())
    settings = GatewaySettings.model_validate(tomllib.loads(shown))
    assert settings.models[1].max_steps == 12
    assert settings.routing.max_price == 5_000_000
    assert settings.tls.certificate == Path("/etc/limner/fullchain.pem")


@pytest.mark.parametrize(
    ("key", "value", "said"),
    [
        ("listen", "8937", 'write "host:port"'),
        ("listen", "http://127.0.0.1:8937", 'write "host:port"'),
        ("listen", "0.0.0.0:70000", 'write "host:port"'),
        ("public_url", "draw.example", "write a whole address"),
        ("public_url", "http://a b/", "write a whole address"),
        ("orchestrators", [{"uri": "ftp://x"}], "write a whole address"),
        ("orchestrators", [{"uri": "http://x"}, {"uri": "http://x/"}], "more than once"),
        ("models", [{"id": "a"}, {"id": "a"}], "more than once"),
        ("models", [{"id": "a", "max_stepps": 3}], "max_steps"),
        ("routing.max_price", 0.5, "quotes"),
        ("routing.max_price", "cheap", "is not a price"),
        ("routing.time_valeu", 1, "did you mean 'time_value'"),
        ("routing.deadline_seconds", 0, "greater than 0"),
        ("limits.max_width", 32, "no size is left"),
        ("limits.max_loras", 5, "less than or equal to 4"),
        ("tls.key", "x.pem", "go together"),
        ("images.max_bytes", 1, "greater than or equal"),
        ("log.level", "loud", "debug"),
        ("lissten", "x", "did you mean 'listen'"),
    ],
)
def test_a_wrong_setting_is_named_with_what_is_allowed(key: str, value: object, said: str) -> None:
    with pytest.raises(ConfigError) as error:
        load(GatewaySettings, None, PREFIX, {key: value}, {})
    assert key.split(".", maxsplit=1)[0] in str(error.value)
    assert said in str(error.value)


def test_the_environment_wins_over_the_file_and_flags_over_both() -> None:
    environment = {
        "LIMNER_GATEWAY__ROUTING__TIME_VALUE": "7/2",
        "LIMNER_GATEWAY__ORCHESTRATORS": '[{"uri": "https://a:1"}]',
        "LIMNER_GATEWAY__SERVER__MAX_IN_FLIGHT": "3",
    }
    settings = load(GatewaySettings, FILE, PREFIX, {"server.max_in_flight": 4}, environment)
    assert settings.routing.time_value == Fraction(7, 2)
    assert settings.orchestrators[0].uri == "https://a:1"
    assert settings.server.max_in_flight == 4


def test_a_passphrase_never_shows() -> None:
    settings = GatewaySettings.model_validate({"keystore": {"passphrase": "hush-hush"}})
    assert "hush" not in repr(settings)
