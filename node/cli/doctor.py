"""`limner-node doctor`."""

import asyncio
import random
import secrets
from collections.abc import Sequence
from pathlib import Path

import click

from network.doctor.report import as_json, exit_status, show
from network.doctor.running import Section
from network.errors import ConfigError
from network.findings import fail
from network.runtime import log
from network.runtime.clock import SystemClock
from network.runtime.settings import load
from node.cli.options import settings_options, with_passphrase
from node.cli.verification import verify
from node.config.settings import ENVIRONMENT_PREFIX, NodeSettings
from node.doctor.checkup import examine_node


@click.command()
@settings_options
@click.option("--json", "in_json", is_flag=True, help="JSON.")
def doctor(*, config: Path | None, data_dir: Path | None, in_json: bool) -> None:
    """Look at everything the node stands on, and say what to do about what is wrong.

    Keys, settings, chain, registration, ether, ports, certificate, GPU, models, disk, clock, prices, and
    what a stranger sees at the service URI. Give it the settings that the node runs with; it changes
    nothing, and may run beside the node. Ends with status 1 if something fails.
    """
    # What is found is told in the report, not in a log besides.
    log.configure("error", "console")
    sections = _examined(config, data_dir)
    if in_json:
        click.echo(as_json(sections))
    else:
        show(sections)
    raise SystemExit(exit_status(sections))


def _examined(config: Path | None, data_dir: Path | None) -> Sequence[Section]:
    try:
        settings = load(NodeSettings, config, ENVIRONMENT_PREFIX, {"data_dir": data_dir})
    except ConfigError as error:
        wrong = fail(
            "settings", str(error), "correct it; configs/node.toml explains every setting"
        )
        return (Section("settings", (wrong,)),)
    settings = with_passphrase(settings)
    return asyncio.run(
        examine_node(
            settings,
            clock=SystemClock(),
            inspect=_inspect,
            randomness=random.Random(secrets.randbits(64)),  # noqa: S311  whom to ask for prices
        )
    )


def _inspect(folder: Path) -> tuple[int, Sequence[str]]:
    found = verify(folder, hashes=False)
    return sum(part.size for part in found.components), found.problems
