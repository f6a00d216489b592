"""`limner-node migrate`: a go-livepeer orchestrator's flags become settings that load."""

import tomllib
from fractions import Fraction
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from hypothesis import given
from hypothesis import strategies as st

from network.livepeer_flags import FlagError
from node.__main__ import main
from node.cli.migration import _RULES, TITLE, migrate_node
from node.config.settings import NodeSettings

GOLDEN = Path(__file__).parent / "golden" / "orchestrator.toml"
#: As the official documentation has an orchestrator for images started, and some more.
LINE = """docker run -v ~/.lpData/:/root/.lpData -p 8936:8936 --gpus all livepeer/go-livepeer:master \\
    -orchestrator -serviceAddr node.example.org:8936 -nvidia 0,1 -aiWorker -v 6 \\
    -aiModels /root/.lpData/aiModels.json -aiModelsDir /srv/models -network=arbitrum-one-mainnet \\
    -ethUrl https://arb.example/v2/KEY123 -ethKeystorePath /root/.lpData/keystore/UTC--x \\
    -ethAcctAddr 0x2c7536E3605D9C16a7a3D7b1898e529396a65c23 -ethPassword hunter2 \\
    -ethOrchAddr 0x73AEd7b5dEb30222fa896f399d46cC99c7BEe57F -ticketEV=2999999999999 \\
    -pricePerUnit 0.02USD -pixelsPerUnit 1048576 -AIServiceRegistry -maxFaceValue 0 -monitor \\
    -maxGasPrice 2500000000 -cliAddr :7935 -reward=false -orchSecret hunter3 -somethingNew 7
"""


def migrate(*arguments: str | Path, said: str | None = None, **environment: str) -> Result:
    words = ["migrate", *map(str, arguments)]
    return CliRunner().invoke(main, words, input=said, env=environment)


def settings_of(flags: dict[str, str]) -> NodeSettings:
    return NodeSettings.model_validate(tomllib.loads(migrate_node(flags).toml(TITLE)))


def test_a_whole_command_line_becomes_the_golden_file() -> None:
    result = migrate("--from-flags", "-", said=LINE)
    assert result.exit_code == 0, result.output
    assert result.output == GOLDEN.read_text()
    for secret in ("hunter2", "hunter3", "KEY123"):
        assert secret not in result.output
    settings = NodeSettings.model_validate(tomllib.loads(result.output))
    assert settings.chain.network == "arbitrum-one"
    assert settings.service_uri == "https://node.example.org:8936"


def test_the_file_is_its_owners_and_never_replaced(tmp_path: Path) -> None:
    out = tmp_path / "node.toml"
    result = migrate("--from-flags", LINE, "--out", out)
    assert result.exit_code == 0, result.output
    assert "limner-node keystore import" in result.output
    assert out.read_text() == GOLDEN.read_text()
    assert out.stat().st_mode & 0o777 == 0o600
    again = migrate("--from-flags", LINE, "--out", out)
    assert again.exit_code == 1
    assert "is there already" in again.output


def test_flags_win_over_the_environment_and_that_over_the_file(tmp_path: Path) -> None:
    file = tmp_path / "livepeer.conf"
    file.write_text("orchestrator\npricePerUnit 1\nnvidia 3\ncliAddr :1\n")
    result = migrate(
        "--config", file, "--from-flags", "-cliAddr :2", LP_CLIADDR=":3", LP_PRICEPERUNIT="2"
    )
    settings = NodeSettings.model_validate(tomllib.loads(result.output))
    assert (settings.price, settings.engine.device) == (Fraction(2), "cuda:3")
    assert settings.admin_listen == "127.0.0.1:2"


def test_nothing_to_read_is_told() -> None:
    result = migrate()
    assert result.exit_code == 2
    assert "no flags" in result.output


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        ("-pricePerUnit cheap", "-pricePerUnit: "),
        ("-pricePerUnit 1 -pixelsPerUnit 0", "-pricePerUnit: '0' is not a positive whole number"),
        ("-network mainnet", "-network: 'mainnet' is not supported"),
        ("-nvidia GPU-1", "-nvidia: "),
        ("-priceFeedAddr 0x12", "-priceFeedAddr: "),
        ("-maxGasPrice lots", "-maxGasPrice: "),
        ("-serviceAddr a:b", "no host:port"),
        ("-cliAddr 5:6:7", "no host:port"),
    ],
)
def test_a_value_that_cannot_be_is_named_with_its_flag(flags: str, words: str) -> None:
    result = migrate("--from-flags", flags)
    assert result.exit_code == 1
    assert words in result.output
    assert "Traceback" not in result.output


def test_where_a_node_listens_and_what_it_calls_itself() -> None:
    for flags, listen, uri in (
        ({"serviceaddr": "n.example:5"}, "https://0.0.0.0:5", "https://n.example:5"),
        ({"serviceaddr": "0.0.0.0:5"}, "https://0.0.0.0:5", None),
        ({"serviceaddr": "n.example"}, "https://0.0.0.0:8936", "https://n.example:8936"),
        (
            {"serviceaddr": "n.example:443", "httpaddr": "http://127.0.0.1:5"},
            "http://127.0.0.1:5",
            "https://n.example:443",
        ),
        ({"httpaddr": "127.0.0.1:5"}, "https://127.0.0.1:5", None),
        ({}, "https://127.0.0.1:8936", None),
    ):
        settings = settings_of(flags)
        assert (settings.listen, settings.service_uri) == (listen, uri)


def test_a_registered_address_of_its_own_is_no_other() -> None:
    own = "0x2c7536E3605D9C16a7a3D7b1898e529396a65c23"
    same = migrate_node({"ethacctaddr": own, "ethorchaddr": own.lower()})
    assert not [note for note in same.notes if "-ethOrchAddr" in note]


def test_what_go_livepeer_made_of_a_price_is_told() -> None:
    told = migrate_node({"priceperunit": "4768371"}).notes
    assert "quoted about 4816054.71 wei" in told[0]
    assert not migrate_node({"priceperunit": "4768371", "autoadjustprice": "false"}).notes[1:]


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
        made = migrate_node(flags)
    except FlagError as error:
        assert str(error).startswith("-")  # noqa: PT017
    else:
        tomllib.loads(made.toml(TITLE))


@given(st.sampled_from(["ethpassword", "orchsecret", "kafkapassword", "ethurl"]))
def test_secrets_are_never_copied(name: str) -> None:
    value = "https://x.example/v2/S3CRET" if name == "ethurl" else "S3CRET"
    assert "S3CRET" not in migrate_node({name: value}).toml(TITLE)
