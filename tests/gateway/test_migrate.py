"""`limner-gateway migrate`: a go-livepeer gateway's flags become settings that load."""

import tomllib
from fractions import Fraction
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from hypothesis import given
from hypothesis import strategies as st

from gateway.__main__ import main
from gateway.cli.migration import _RULES, TITLE, migrate_gateway
from gateway.config import GatewaySettings
from network.livepeer_flags import FlagError
from network.prices import CurrencyPrice

GOLDEN = Path(__file__).parent / "golden" / "gateway.toml"
LINE = """livepeer -gateway -orchAddr one.example:8936,https://two.example,one.example:8936 \\
    -httpAddr 0.0.0.0:8937 -httpIngest -datadir ~/.lpData2 -network arbitrum-one-mainnet \\
    -ethUrl https://arb1.arbitrum.io/rpc -ethAcctAddr 0x2c7536E3605D9C16a7a3D7b1898e529396a65c23 \\
    -ethPassword hunter2 -maxTotalEV=100000000000000 -maxTicketEV 3000000000000 \\
    -maxPricePerUnit 0.5e-7USD -ignoreMaxPriceIfNeeded -aiProcessingRetryTimeout 30s \\
    -maxPricePerCapability /root/.lpData/max.json -orchWebhookUrl https://list.example/?key=hunter3 \\
    -selectStakeWeight 0.7 -kafkaPassword hunter4 -v 4
"""


def migrate(*arguments: str | Path, said: str | None = None) -> Result:
    return CliRunner().invoke(main, ["migrate", *map(str, arguments)], input=said)


def settings_of(**flags: str) -> GatewaySettings:
    return GatewaySettings.model_validate(tomllib.loads(migrate_gateway(flags).toml(TITLE)))


def test_a_whole_command_line_becomes_the_golden_file() -> None:
    result = migrate("--from-flags", "-", said=LINE)
    assert result.exit_code == 0, result.output
    assert result.output == GOLDEN.read_text()
    for secret in ("hunter2", "hunter3", "hunter4"):
        assert secret not in result.output
    settings = GatewaySettings.model_validate(tomllib.loads(result.output))
    assert settings.routing.max_price_per_capability == "/root/.lpData/max.json"
    assert settings.routing.max_price == CurrencyPrice(Fraction(5, 10**8), "USD")
    assert [one.uri for one in settings.orchestrators] == [
        "https://one.example:8936",
        "https://two.example:8935",
    ]


def test_a_remote_signer_and_its_client_are_told_apart() -> None:
    signer = settings_of(
        remotesigner="true",
        httpaddr="10.0.0.1:9000",
        remotesignerwebhookurl="https://who.example/may",
        remotesignerallownoauth="false",
    )
    assert signer.signer.listen == "10.0.0.1:9000"
    assert signer.signer.webhook_url == "https://who.example/may"
    assert signer.listen == GatewaySettings().listen
    client = settings_of(remotesignerurl="https://sign.example", remotesignerheaders="x: S3CRET")
    assert client.payments.signer_url == "https://sign.example"


def test_where_orchestrators_come_from_and_who_is_left_out() -> None:
    settings = settings_of(
        orchwebhookurl="https://list.example/all",
        orchblocklist="0x2c7536e3605d9c16a7a3d7b1898e529396a65c23, ",
        orchminlivepeerversion="0.9.1",
    )
    discovery = settings.discovery
    assert discovery.webhook_url.get_secret_value() == "https://list.example/all"
    assert discovery.blocked_accounts == ("0x2c7536E3605D9C16a7a3D7b1898e529396a65c23",)
    assert discovery.min_version == "0.9.1"


def test_maximum_prices_by_model_are_taken_as_they_are() -> None:
    text = (
        '{"capabilities_prices":[{"pipeline":"text-to-image","model_id":"default",'
        '"price_per_unit":2000,"pixels_per_unit":3},{"pipeline":"text-to-image",'
        '"model_id":"a/b","price_per_unit":"1e-8USD"}]}'
    )
    both = settings_of(maxpricepercapability=text, maxpriceperunit="7", pixelsperunit="2")
    assert both.routing.max_price == Fraction(7, 2)
    assert both.routing.max_price_per_capability == text
    assert settings_of(maxpriceperunit="0").routing.max_price is None


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        ("-orchAddr ftp://x", "-orchAddr: "),
        ("-maxPricePerUnit cheap", "-maxPricePerUnit: "),
        ("-maxPricePerCapability '{}'", "-maxPricePerCapability: "),
        ("-orchBlocklist nobody", "-orchBlocklist: "),
        ("-orchMinLivepeerVersion new", "-orchMinLivepeerVersion: "),
        ("-maxTicketEV 1e12", "-maxTicketEV: "),
        ("-remoteSignerUrl https://u:p@x.example", "-remoteSignerUrl: the URL holds a secret"),
        ("-remoteSignerUrl nowhere", "no valid settings: payments.signer_url"),
    ],
)
def test_a_value_that_cannot_be_is_named_with_its_flag(flags: str, words: str) -> None:
    result = migrate("--from-flags", flags)
    assert result.exit_code == 1
    assert words in result.output
    assert "Traceback" not in result.output


def test_every_flag_has_its_own_rule() -> None:
    assert all(name == flag.lower() for name, (flag, _) in _RULES.items())


flags_of_go = st.dictionaries(
    st.sampled_from(sorted(_RULES)) | st.text(max_size=8),
    st.text(max_size=20) | st.from_regex(r"[0-9]{1,30}(USD|eth)?") | st.just("true"),
    max_size=6,
)


@given(flags_of_go)
def test_whatever_the_flags_say_the_file_loads_or_the_flag_is_named(flags: dict[str, str]) -> None:
    try:
        made = migrate_gateway(flags)
    except FlagError as error:
        assert str(error).startswith("-")  # noqa: PT017
    else:
        tomllib.loads(made.toml(TITLE))
