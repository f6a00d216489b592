"""`limner-gateway keystore`."""

from pathlib import Path

from gateway.cli.options import load_settings, settings_options
from network.keystore_commands import keystore_group
from network.passphrase import PassphraseSources


def _locate(*, config: Path | None, data_dir: Path | None) -> PassphraseSources:
    return load_settings(config, data_dir).passphrase_sources


command = keystore_group(settings_options, _locate)
