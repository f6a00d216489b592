"""go-livepeer's flags, from wherever its operators keep them."""

import shlex
import tomllib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from network.livepeer_flags import (
    FlagError,
    flags_of_command,
    flags_of_environment,
    flags_of_file,
    host_and_port,
    is_on,
    joined,
    shown,
    tells_a_key,
)
from network.migration import Migration


@pytest.mark.parametrize(
    ("line", "flags"),
    [
        ("livepeer -orchestrator -nvidia 0", {"orchestrator": "true", "nvidia": "0"}),
        ("./livepeer --network=offchain -v 6", {"network": "offchain", "v": "6"}),
        ("-AIServiceRegistry -datadir x", {"aiserviceregistry": "true", "datadir": "x"}),
        ("-monitor=false -reward", {"monitor": "false", "reward": "true"}),
        (
            "docker run -v a:b -p 8936:8936 livepeer/go-livepeer:v0.8.1 -gateway -orchAddr 'a, b'",
            {"gateway": "true", "orchaddr": "a, b"},
        ),
        ("/usr/local/bin/livepeer \\\n -orchestrator \\\n -cliAddr :7935", None),
        ("-unheardOf -nvidia 0", {"unheardof": "true", "nvidia": "0"}),
        ("-ethUrl ''", {"ethurl": ""}),
        ("", {}),
    ],
)
def test_a_command_line_is_read_as_a_shell_and_go_would(
    line: str, flags: dict[str, str] | None
) -> None:
    expected = {"orchestrator": "true", "cliaddr": ":7935"} if flags is None else flags
    assert flags_of_command(line) == expected


@pytest.mark.parametrize("line", ["livepeer stray", "-orchestrator true", "-v '6", "x" * 300_000])
def test_a_line_that_is_none_says_where(line: str) -> None:
    with pytest.raises(FlagError, match=r"word [12] belongs|cannot be read|more than"):
        flags_of_command(line)


def test_what_may_be_a_secret_is_not_repeated_in_an_error() -> None:
    with pytest.raises(FlagError) as caught:
        flags_of_command("-ethPassword correct horse")
    assert "horse" not in str(caught.value)


def test_a_file_holds_a_flag_a_line() -> None:
    text = "# old\northestrator\n\n-ethUrl https://x  # a comment\nmaxPricePerUnit\t7\nmonitor\n"
    assert flags_of_file(text) == {
        "orthestrator": "true",
        "ethurl": "https://x",
        "maxpriceperunit": "7",
        "monitor": "true",
    }
    with pytest.raises(FlagError, match="line 2"):
        flags_of_file("v 6\nv=6\n")


def test_the_environment_holds_flags_too() -> None:
    found = flags_of_environment(
        {"LP_ORCHADDR": "x", "LP_": "y", "PATH": "z", "LP_AI_MODELS": "m"}
    )
    assert found == {"orchaddr": "x", "aimodels": "m"}


@given(st.text())
def test_no_text_breaks_a_reader(text: str) -> None:
    for read in (flags_of_command, flags_of_file):
        try:
            found = read(text)
        except FlagError:
            continue
        assert all(name == name.lower() for name in found)


@given(
    st.dictionaries(
        st.from_regex(r"x[a-z]{1,8}", fullmatch=True),
        st.text().filter(lambda text: text[:1] != "-"),
    )
)
def test_quoted_values_come_through_whole(flags: dict[str, str]) -> None:
    line = " ".join(f"-{name} {shlex.quote(value)}" for name, value in flags.items())
    kept = {name: value.replace("\\\n", " ") for name, value in flags.items()}
    assert flags_of_command(f"livepeer {line}") == kept


def test_a_switch_is_read_as_go_does() -> None:
    flags = {"a": "true", "b": "1", "c": "false", "d": "T"}
    assert [is_on(flags, name) for name in "abcde"] == [True, True, False, True, False]
    assert is_on({}, "a", default=True)


@pytest.mark.parametrize(
    ("text", "host", "port"),
    [
        ("1.2.3.4:5", "1.2.3.4", 5),
        (":5", "", 5),
        ("node.example", "node.example", 8936),
        ("https://node.example:7/", "node.example", 7),
        ("[::1]:9", "::1", 9),
    ],
)
def test_addresses_are_taken_apart_and_joined(text: str, host: str, port: int) -> None:
    assert host_and_port(text, 8936) == (host, port)
    assert host_and_port(joined(host, port), 1) == (host, port)


@pytest.mark.parametrize("text", ["a:b", "a:99999", "[::1"])
def test_what_is_no_address_is_told(text: str) -> None:
    with pytest.raises(ValueError, match="no host:port"):
        host_and_port(text, 1)


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("https://arb1.arbitrum.io/rpc", False),
        ("https://rpc.example:8545/", False),
        ("https://arb.example/v2/0123456789abcdef", True),
        ("https://user:pass@rpc.example", True),
        ("https://rpc.example/?key=1", True),
        ("wss://rpc.example/ws/KEY", True),
        ("http://[", True),
        ("7", False),
    ],
)
def test_a_url_with_a_key_in_it_is_told_from_one_without(url: str, *, expected: bool) -> None:
    assert tells_a_key(url) is expected
    assert (shown("ethUrl", url) == "...") is expected
    assert shown("orchSecret", "x") == shown("remoteSignerHeaders", "x") == "..."


values = st.one_of(
    st.text(),
    st.integers(),
    st.booleans(),
    st.lists(st.text(), max_size=3),
)


@given(
    st.dictionaries(st.sampled_from(["a", "b.c", "b.d", "e.f.g"]), values),
    st.lists(st.text(), max_size=3),
)
def test_whatever_is_set_and_told_the_file_reads_back(
    settings: dict[str, object], words: list[str]
) -> None:
    made = Migration(dict(settings), list(words), list(words))
    made.set("list", [{"x": 'a "quoted" \\ one', "y": 2}, {"x": "\x7f"}])
    found = tomllib.loads(made.toml("A title"))
    assert found.pop("list") == [{"x": 'a "quoted" \\ one', "y": 2}, {"x": "\x7f"}]
    flat: dict[str, object] = {}
    for dotted in settings:
        value: object = found
        for part in dotted.split("."):
            assert isinstance(value, dict)
            value = value[part]
        flat[dotted] = value
    assert flat == settings
