"""The command `limner-devnet`."""

import asyncio
import signal
from contextlib import suppress
from pathlib import Path
from typing import Final

import click
import orjson

from network.devnet.anvil import VARIABLE, find_anvil
from network.devnet.deployment import Rules
from network.devnet.home import Home, open_home
from network.devnet.service import Devnet, Options, open_devnet
from network.errors import LimnerError
from network.runtime import log as logging_setup
from network.runtime.clock import SystemClock

_FOLDER: Final = Path("~/.limner/devnet")
#: Winning tickets are frequent, so that one sees them: about every fourth image of a megapixel.
_NODE_SETTINGS: Final = {"listen": "https://127.0.0.1:8936", "payments.max_face_value": 10**13}
_CHECK_SECONDS: Final = 0.5


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
def main() -> None:
    """A payment network of your own: a chain on this machine with the network's contracts.

    \b
    Start it, then a node and a gateway that pay each other:
        limner-devnet run
        limner-node run --config ~/.limner/devnet/node.toml
        limner-gateway run --config ~/.limner/devnet/gateway.toml
    """  # noqa: D301  click reads \b as a paragraph it must not wrap


@main.command()
@click.option("--port", type=click.IntRange(1, 65535), default=8545, show_default=True)
@click.option(
    "--data-dir",
    type=click.Path(path_type=Path, file_okay=False),
    default=_FOLDER,
    show_default=True,
    help="The chain, the accounts, network.json and two configurations.",
)
@click.option(
    "--round-length",
    type=click.IntRange(5, 5760),
    default=100,
    show_default=True,
    help="Blocks of a round; there is a block each second. Tickets live for two rounds at most.",
)
@click.option(
    "--service-uri",
    default="https://127.0.0.1:8936",
    show_default=True,
    help="Where the node will be reached; it is written into the registries.",
)
@click.option(
    "--no-anvil", is_flag=True, help="Run the chain in this process; each start begins anew."
)
@click.option("--reset", is_flag=True, help="Begin with a new chain, accounts and configurations.")
@click.option("--json-ready", is_flag=True, help="Print one JSON line on stdout once it serves.")
def run(
    *,
    port: int,
    data_dir: Path,
    round_length: int,
    service_uri: str,
    no_anvil: bool,
    reset: bool,
    json_ready: bool,
) -> None:
    """Run the chain until it is told to stop (Ctrl-C or SIGTERM).

    The chain is anvil if it is found (in $ANVIL or on the PATH), and py-evm inside this process
    otherwise. A first start deploys the contracts, registers a node, and funds a gateway.
    """
    folder = data_dir.expanduser().absolute()
    logging_setup.configure("info", "auto")
    options = Options(port, Rules(round_length=round_length), service_uri, not no_anvil)
    try:
        with open_home(folder) as home:
            uses_anvil = options.may_use_anvil and find_anvil() is not None
            home.prepare(uses_anvil=uses_anvil, reset=reset)
            asyncio.run(_serve(home, options, as_json=json_ready))
    except LimnerError as error:
        raise click.ClickException(str(error)) from None


async def _serve(home: Home, options: Options, *, as_json: bool) -> None:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    async with open_devnet(home, options, SystemClock()) as devnet:
        node = await asyncio.to_thread(home.write_config, "node", dict(_NODE_SETTINGS))
        table = f'\n[[orchestrators]]\nuri = "{options.service_uri}"\n'
        gateway = await asyncio.to_thread(home.write_config, "gateway", {}, table)
        if as_json:
            line = {
                "url": devnet.url,
                "admin_url": "",
                "address": devnet.contracts.controller,
                "network": str(home.network_file),
                "engine": devnet.engine,
                "node_config": str(node),
                "gateway_config": str(gateway),
            }
            click.echo(orjson.dumps(line))
        else:
            click.echo(_told(devnet, home, node, gateway))
        while not stop.is_set():
            await devnet.check()
            with suppress(TimeoutError):
                await asyncio.wait_for(stop.wait(), _CHECK_SECONDS)


def _told(devnet: Devnet, home: Home, node: Path, gateway: Path) -> str:
    lines = [
        f"chain     {devnet.url}   ({devnet.engine})",
        f"network   {home.network_file}",
        f"node      {devnet.node.address}   bonded and active",
        f"gateway   {devnet.gateway.address}   deposit and reserve funded",
    ]
    if devnet.anvil is None:
        lines.append(
            f"This chain is gone with this process; anvil on the PATH or in ${VARIABLE} keeps one."
        )
    return "\n".join(
        [
            *lines,
            "",
            "Go on with, each in a terminal of its own:",
            f"  limner-node run --config {node}",
            f"  limner-gateway run --config {gateway}",
            "",
            "Running until Ctrl-C.",
        ]
    )


if __name__ == "__main__":
    main()
