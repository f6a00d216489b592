"""`limner-gateway keys webhook-secret`: what the holder of a key checks webhooks with."""

import asyncio
import stat
from pathlib import Path

import orjson
import pytest
from click.testing import CliRunner

from gateway.__main__ import main
from gateway.config import GatewaySettings
from gateway.home import webhook_secret
from gateway.promises.signing import key_secret, shown_secret
from network.errors import ConfigError


def said(data: Path, *arguments: str) -> str:
    """Stdout of a command that is to succeed."""
    result = CliRunner().invoke(main, ["keys", *arguments, "--data-dir", str(data)])
    assert result.exit_code == 0, result.output
    return result.stdout.strip()


def test_each_key_has_one_that_stays(tmp_path: Path) -> None:
    ids = [orjson.loads(said(tmp_path, "create", name, "--json"))["key_id"] for name in "ab"]
    shown = [said(tmp_path, "webhook-secret", key_id) for key_id in (*ids, *ids)]
    assert shown[:2] == shown[2:]
    assert len(set(shown)) == 2
    file = tmp_path / "webhook.secret"
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert shown[0] == shown_secret(key_secret(file.read_bytes(), ids[0]))


def test_there_is_none_for_a_key_that_is_not_there(tmp_path: Path) -> None:
    result = CliRunner().invoke(
        main, ["keys", "webhook-secret", "nobody", "--data-dir", str(tmp_path)]
    )
    assert result.exit_code == 1
    assert "there is no key with id 'nobody'" in result.stderr


async def test_programs_that_start_at_once_draw_the_same(tmp_path: Path) -> None:
    settings = GatewaySettings(data_dir=tmp_path)
    drawn = await asyncio.gather(*(webhook_secret(settings) for _ in range(16)))
    assert len(set(drawn)) == 1


async def test_a_file_that_is_no_secret_is_told(tmp_path: Path) -> None:
    (tmp_path / "webhook.secret").write_bytes(b"short")
    with pytest.raises(ConfigError, match=r"webhook\.secret is not 32 bytes long"):
        await webhook_secret(GatewaySettings(data_dir=tmp_path))
