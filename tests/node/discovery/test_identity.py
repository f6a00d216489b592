from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from network.errors import ConfigError
from network.keystore import create_keystore
from network.units import Address
from network.wire.codec import AuthToken
from node.discovery.hardware import GpuReading, Hardware, read_nvml
from node.discovery.identity import open_identity
from node.discovery.sessions import LIFETIME_SECONDS, Sessions, TokenFault
from tests.node.nodes import NODE_KEY

SECRET = b"s" * 32
ALICE = Address(b"\xaa" * 20)
BOB = Address(b"\xbb" * 20)


async def keystore(folder: Path, passphrase: str) -> None:
    await create_keystore(folder / "keystore.json", passphrase, b"\x11" * 32, scrypt_n=2)


async def test_a_passphrase_file_is_made_once_and_only_its_owner_reads_it(tmp_path: Path) -> None:
    first = await open_identity(tmp_path, "", None)
    path = tmp_path / "passphrase"
    assert path.stat().st_mode & 0o777 == 0o600
    made = path.read_text()
    again = await open_identity(tmp_path, "", None)
    assert first.signer.address == again.signer.address
    assert first.session_secret == again.session_secret
    assert path.read_text() == made
    assert (tmp_path / "session-secret").stat().st_mode & 0o777 == 0o600


async def test_a_keystore_without_any_passphrase_is_refused_and_none_is_made_up(
    tmp_path: Path,
) -> None:
    await keystore(tmp_path, "another")
    with pytest.raises(ConfigError, match=r"nothing opens .*keystore\.passphrase_file"):
        await open_identity(tmp_path, "", None)
    assert not (tmp_path / "passphrase").exists()


async def test_a_given_passphrase_needs_no_file(tmp_path: Path) -> None:
    await keystore(tmp_path, "given")
    assert (await open_identity(tmp_path, "given", None)).signer.address == NODE_KEY.address
    assert not (tmp_path / "passphrase").exists()


async def test_files_that_do_not_do_are_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="does not exist"):
        await open_identity(tmp_path, "", tmp_path / "nowhere")
    empty = tmp_path / "empty"
    empty.write_text("\n")
    with pytest.raises(ConfigError, match="is empty"):
        await open_identity(tmp_path, "", empty)
    await keystore(tmp_path, "given")
    (tmp_path / "session-secret").write_bytes(b"short")
    with pytest.raises(ConfigError, match="is damaged"):
        await open_identity(tmp_path, "given", None)


def test_a_token_is_good_for_half_an_hour() -> None:
    sessions = Sessions(SECRET, bound=False)
    token = sessions.issue(None, 1000.0)
    assert sessions.check(token, None, 1000.0 + LIFETIME_SECONDS) is None
    assert sessions.check(token, None, 1001.0 + LIFETIME_SECONDS) is TokenFault.EXPIRED
    assert sessions.check(None, None, 0.0) is TokenFault.MISSING


def test_a_bound_token_is_worth_nothing_to_another() -> None:
    sessions = Sessions(SECRET, bound=True)
    token = sessions.issue(ALICE, 1000.0)
    assert sessions.check(token, ALICE, 1000.0) is None
    assert sessions.check(token, BOB, 1000.0) is TokenFault.INVALID
    assert sessions.check(token, None, 1000.0) is TokenFault.INVALID


@given(
    token=st.binary(max_size=40),
    session=st.text(max_size=8),
    when=st.integers(-(2**63), 2**63 - 1),
)
def test_a_made_up_token_is_never_good(token: bytes, session: str, when: int) -> None:
    fault = Sessions(SECRET, bound=False).check(AuthToken(token, session, when), None, 0.0)
    assert fault in (TokenFault.MISSING, TokenFault.INVALID)


class Watch:
    """A clock that stands still until told otherwise."""

    def __init__(self) -> None:
        self.time = 0.0

    def now(self) -> float:
        return self.time

    def monotonic(self) -> float:
        return self.time


async def test_the_driver_is_asked_at_most_once_a_second() -> None:
    watch, asked = Watch(), []

    def read() -> tuple[GpuReading, ...]:
        asked.append(watch.time)
        return ()

    hardware = Hardware(watch, read)
    for moment in (0.0, 0.5, 1.0, 1.2):
        watch.time = moment
        assert await hardware.refresh() == ()
    assert asked == [0.0, 1.0]


def test_a_machine_without_a_driver_has_no_gpus_and_no_error() -> None:
    assert isinstance(read_nvml(), tuple)
