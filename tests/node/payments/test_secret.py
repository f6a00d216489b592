from pathlib import Path

import pytest

from network.errors import ConfigError
from node.payments.secret import ticket_secret


def test_it_is_made_once_and_only_its_owner_reads_it(tmp_path: Path) -> None:
    secret = ticket_secret(tmp_path / "data", 1)
    assert len(secret) == 32
    assert ticket_secret(tmp_path / "data", 1) == secret
    assert ticket_secret(tmp_path / "other", 1) != secret
    (path,) = (tmp_path / "data").iterdir()
    assert path.stat().st_mode & 0o777 == 0o600


def test_case_28_it_is_for_one_chain(tmp_path: Path) -> None:
    ticket_secret(tmp_path, 42161)
    with pytest.raises(
        ConfigError, match=r"payments of chain 42161, and chain\.network is chain 7"
    ):
        ticket_secret(tmp_path, 7)


@pytest.mark.parametrize("content", ["", "{}", '{"chain_id": 1, "secret": "abcd"}', "\x00"])
def test_a_damaged_file_is_named_and_what_is_in_it_is_not(tmp_path: Path, content: str) -> None:
    (tmp_path / "ticket-secret.json").write_text(content)
    with pytest.raises(ConfigError, match="is damaged") as caught:
        ticket_secret(tmp_path, 1)
    assert "abcd" not in str(caught.value)
