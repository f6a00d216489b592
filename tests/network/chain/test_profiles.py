"""A network's name or file stands for its contracts; a wrong one is told."""

import json
from pathlib import Path
from typing import Any

import pytest

from network.chain.profiles import ARBITRUM_ONE, endpoints_of, profile_of
from network.chain.settings import ChainSettings
from network.errors import ConfigError
from network.identity import checksum
from network.runtime.settings import Settings, load
from network.units import Wei

CONTROLLER = "0xD8E8328501E9645d16Cf49539efC04f734606ee4"
REGISTRY = "0x04C0b249740175999E5BF5c9ac1dA92431EF34C5"


class Program(Settings):
    chain: ChainSettings = ChainSettings()


def written(folder: Path, **changes: Any) -> Path:
    content = {
        "chain_id": 412346,
        "controller": CONTROLLER,
        "ai_service_registry": REGISTRY,
        "rpc": "http://127.0.0.1:8545",
    }
    path = folder / "network.json"
    path.write_text(json.dumps({**content, **changes}))
    return path


def test_off_chain_is_the_default_and_no_profile() -> None:
    assert profile_of(ChainSettings().network) is None


def test_arbitrum_one_is_built_in() -> None:
    profile = profile_of("arbitrum-one")
    assert profile is ARBITRUM_ONE
    assert profile.chain_id == 42161
    assert checksum(profile.controller) == CONTROLLER
    assert checksum(profile.ai_service_registry) == REGISTRY


def test_a_devnets_file_names_contracts_and_endpoint(tmp_path: Path) -> None:
    profile = profile_of(str(written(tmp_path, more="is ignored")))
    assert profile is not None
    assert (profile.chain_id, checksum(profile.controller)) == (412346, CONTROLLER)
    assert endpoints_of(ChainSettings(), profile) == ("http://127.0.0.1:8545",)
    named = ChainSettings.model_validate({"rpc": ["https://one", "https://two"]})
    assert endpoints_of(named, profile) == ("https://one", "https://two")


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"controller": "0x12"}, "controller: '0x12' is not an address"),
        ({"controller": 7}, "controller"),
        ({"chain_id": 0}, "chain_id"),
        ({"chain_id": "412346"}, "chain_id"),
        ({"rpc": None}, "rpc"),
    ],
)
def test_a_file_that_is_wrong_says_where(
    tmp_path: Path, changes: dict[str, Any], problem: str
) -> None:
    path = written(tmp_path, **changes)
    with pytest.raises(ConfigError, match=r"^chain\.network: .*network\.json") as refused:
        profile_of(str(path))
    assert problem in str(refused.value)


@pytest.mark.parametrize("text", ["", "[]", "{", "\x00\xff"])
def test_what_is_no_network_file_is_told(tmp_path: Path, text: str) -> None:
    path = tmp_path / "network.json"
    path.write_text(text)
    with pytest.raises(ConfigError, match="is not a network file"):
        profile_of(str(path))


def test_an_unknown_name_lists_the_known_ones(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="offchain, arbitrum-one"):
        profile_of("arbitrum-on")
    with pytest.raises(ConfigError, match="cannot read"):
        profile_of(str(tmp_path))


def test_endpoints_are_needed_and_their_keys_are_never_shown() -> None:
    with pytest.raises(ConfigError, match="at least one RPC endpoint"):
        endpoints_of(ChainSettings(), ARBITRUM_ONE)
    settings = ChainSettings.model_validate({"rpc": ["ftp://host/verysecret"]})
    with pytest.raises(ConfigError, match=r"chain\.rpc\.0") as refused:
        endpoints_of(settings, ARBITRUM_ONE)
    assert "verysecret" not in str(refused.value) + repr(settings)


def test_the_table_is_read_as_an_operator_writes_it(tmp_path: Path) -> None:
    path = tmp_path / "node.toml"
    path.write_text(
        '[chain]\nnetwork = "arbitrum-one"\nrpc = ["https://a"]\ngas.max_fee_gwei = 3\n'
    )
    environment = {"LIMNER_NODE__CHAIN__CONFIRMATIONS": "2"}
    chain = load(Program, path, "LIMNER_NODE__", {}, environment).chain
    assert (chain.network, chain.confirmations) == ("arbitrum-one", 2)
    assert chain.gas.max_fee == Wei(3 * 10**9)
    path.write_text("[chain]\nconfirmations = 0\n")
    with pytest.raises(ConfigError, match=r"chain\.confirmations"):
        load(Program, path, "LIMNER_NODE__", {}, {})
