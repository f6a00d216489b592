"""`limner-node keystore`."""

from pathlib import Path

from network.keystore_commands import keystore_group
from network.passphrase import PassphraseSources
from node.cli.options import load_settings, passphrase_sources_of, settings_options


def _locate(*, config: Path | None, data_dir: Path | None) -> PassphraseSources:
    return passphrase_sources_of(load_settings(config, {"data_dir": data_dir}))


keystore = keystore_group(settings_options, _locate)
