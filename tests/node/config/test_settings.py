import tomllib
from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest
from pydantic import BaseModel

from network.errors import ConfigError
from network.runtime.settings import load
from node.config.settings import (
    NodeSettings,
    check_access,
    is_loopback,
    serves_strangers,
    service_uri,
)

EXAMPLE = Path(__file__).parents[3] / "configs" / "node.toml"
GATEWAY = "0x2c7536E3605D9C16a7a3D7b1898e529396a65c23"


def settings(**values: Any) -> NodeSettings:
    return NodeSettings.model_validate(values)


def test_the_example_file_holds_every_setting_and_its_default() -> None:
    assert load(NodeSettings, EXAMPLE, "LIMNER_NODE__", {}, {}) == NodeSettings()
    text = EXAMPLE.read_text()
    content = tomllib.loads(text)
    for name, field in NodeSettings.model_fields.items():
        assert name in content or f"# {name} = " in text or f"# [[{name}]]" in text, name
        if isinstance(field.default, BaseModel):
            for key in type(field.default).model_fields:
                assert key in content[name] or f"# {key} = " in text, f"{name}.{key}"


@pytest.mark.parametrize(
    ("host", "expected"),
    [
        ("127.0.0.1", True),
        ("127.8.0.9", True),
        ("::1", True),
        ("localhost", True),
        ("0.0.0.0", False),  # noqa: S104
        ("192.168.1.4", False),
        ("node.example.org", False),
        ("localhost.example.org", False),
    ],
)
def test_loopback_is_told_from_the_rest(host: str, expected: bool) -> None:  # noqa: FBT001
    assert is_loopback(host) is expected


def test_a_public_address_needs_gateways_or_the_word_open() -> None:
    with pytest.raises(ConfigError, match=r"allowed_gateways .* or start with --open"):
        check_access(settings(listen="https://0.0.0.0:8936"))
    check_access(settings(listen="https://0.0.0.0:8936", open=True))
    check_access(settings(listen="https://0.0.0.0:8936", allowed_gateways=[GATEWAY]))
    check_access(settings())


def test_a_proxy_in_front_makes_loopback_public() -> None:
    behind = settings(listen="http://127.0.0.1:8936", service_uri="https://node.example.org")
    assert serves_strangers(behind)
    with pytest.raises(ConfigError, match="can be reached by others"):
        check_access(behind)


def test_open_and_a_list_contradict() -> None:
    with pytest.raises(ConfigError, match="remove one of the two"):
        check_access(settings(open=True, allowed_gateways=[GATEWAY]))


def test_the_service_uri_follows_from_what_is_listened_on() -> None:
    assert service_uri(settings(), 4711) == "https://127.0.0.1:4711"
    assert service_uri(settings(listen="http://[::1]:0"), 5) == "http://[::1]:5"
    assert service_uri(settings(service_uri="https://a.example/x/"), 5) == "https://a.example/x"
    with pytest.raises(ConfigError, match="service_uri"):
        service_uri(settings(listen="https://0.0.0.0:1"), 1)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("listen", "127.0.0.1:8936"),
        ("listen", "https://127.0.0.1"),
        ("listen", "ftp://127.0.0.1:1"),
        ("admin_listen", "7935"),
        ("admin_listen", "http://127.0.0.1:7935"),
        ("price", "cheap"),
        ("price", "-1"),
        ("price", 0.5),
        ("usd_per_eth", "0"),
        ("allowed_gateways", ["0x123"]),
        ("limits", {"max_steps": 0}),
        ("queue", {"max_waiting": -1}),
        ("engine", {"device": "tpu"}),
        ("engine", {"memory_budget": "lots"}),
        ("engine", {"memory_budget": "0 B"}),
        ("engine", {"host_memory_budget": True}),
        ("models", [{"id": "a b"}]),
        ("models", [{"id": "a/b", "capacity": 0}]),
        ("log", {"level": "loud"}),
        ("unknown", 1),
    ],
)
def test_a_wrong_value_is_named_with_its_key(key: str, value: object) -> None:
    with pytest.raises(ConfigError) as caught:
        load(NodeSettings, None, "LIMNER_NODE__", {key: value}, {})
    assert caught.value.key.startswith(key)


def test_memory_is_written_with_its_unit() -> None:
    read = settings(engine={"memory_budget": "1.5 GiB", "host_memory_budget": "0 B"}).engine
    assert (read.memory_budget, read.host_memory_budget) == (3 * 2**29, 0)
    assert settings(engine={"memory_budget": "auto"}).engine == settings().engine


def test_prices_are_exact() -> None:
    assert settings(price="0.1").price == Fraction(1, 10)
    assert settings(models=[{"id": "a/b", "price": "5 gwei"}]).models[0].price == 5 * 10**9
