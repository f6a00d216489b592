"""The command line of the demo."""

import fcntl
import json
import signal
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import click
from rich.console import Console
from typing_extensions import override

from scripts.demo_run.account import show_account
from scripts.demo_run.journey import Wish, curl_line, send
from scripts.demo_run.paid import pay_until_one_wins, redeem, show_balances, start_paid
from scripts.local_network.network import MODEL, ROOT, Gateway, Node, start_gateway, start_node
from scripts.local_network.paid import PaidNetwork
from scripts.local_network.processes import ProgramError

OUT = ROOT / "out"
DEFAULT_PROMPT = "a yellow star on a blue background"
LARGEST_SIDE = 1024


class _Size(click.ParamType[tuple[int, int]]):
    name = "WIDTHxHEIGHT"

    @override
    def convert(
        self, value: object, param: click.Parameter | None, ctx: click.Context | None
    ) -> tuple[int, int]:
        if isinstance(value, tuple):
            return value
        width, _, height = str(value).lower().partition("x")
        if not (width.isdecimal() and height.isdecimal()):
            self.fail(f"{value!r} is not a size; write for example 512x512", param, ctx)
        return int(width), int(height)


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.argument("prompt", default=DEFAULT_PROMPT)
@click.option("--seed", type=click.IntRange(0, 2**32 - 1), help="Same seed, same image.")
@click.option("--steps", type=click.IntRange(1, 100), default=30, show_default=True)
@click.option("--size", type=_Size(), default="512x512", show_default=True)
@click.option("--serve", is_flag=True, help="Keep node and gateway running; end with Ctrl-C.")
@click.option("--paid", is_flag=True, help="Pay with tickets, on a chain of this machine's own.")
@click.option("--no-anvil", is_flag=True, help="With --paid: a chain that needs no other program.")
@click.option("--json", "as_json", is_flag=True, help="With --serve: one JSON line on stdout.")
@click.option(
    "--out",
    type=click.Path(path_type=Path, file_okay=False),
    default=OUT,
    help="Where the image goes.  [default: out]",
)
@click.option(
    "--data-dir",
    type=click.Path(path_type=Path, file_okay=False),
    help="Where node and gateway keep their journals and keys.  [default: out/demo, or out/demo-paid]",
)
def main(
    *,
    prompt: str,
    seed: int | None,
    steps: int,
    size: tuple[int, int],
    serve: bool,
    paid: bool,
    no_anvil: bool,
    as_json: bool,
    out: Path,
    data_dir: Path | None,
) -> None:
    """Start a node and a gateway on this machine and send PROMPT through the gateway.

    The built-in model draws shapes: "small red circle, green background", "a purple heart",
    "a ring in the top left corner". The image goes to out/.
    """
    console = Console(stderr=as_json, highlight=False)
    signal.signal(signal.SIGTERM, _interrupt)
    data_dir = (data_dir or OUT / ("demo-paid" if paid else "demo")).resolve()
    wish = Wish.drawing_a_seed(prompt, size, steps, seed)
    try:
        with _alone_in(data_dir), ExitStack() as running:
            if paid:
                network = start_paid(data_dir, wish, running, console, use_anvil=not no_anvil)
                node, gateway = network.node, network.gateway
            else:
                network = None
                node, gateway = _start(data_dir, running, console)
            if network is not None and not serve:
                _pay_for_one(network, wish, out, console)
            elif serve:
                _serve(node, gateway, data_dir, wish, console, as_json=as_json)
            else:
                _make_one(node, gateway, wish, out, console)
    except (ProgramError, OSError) as error:
        console.print(f"[red]The demo failed:[/red] {error}", markup=True)
        sys.exit(1)
    except KeyboardInterrupt:
        if not serve:
            sys.exit(130)


def _interrupt(_number: int, _frame: object) -> None:
    raise KeyboardInterrupt


@contextmanager
def _alone_in(folder: Path) -> Iterator[None]:
    """Two demos at once would share databases and keys."""
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "lock").open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            message = f"another demo runs on {folder}; end it, or give another --data-dir"
            raise ProgramError(message) from None
        yield


def _start(folder: Path, running: ExitStack, console: Console) -> tuple[Node, Gateway]:
    with console.status("starting the node"):
        node = start_node(folder / "node")
        running.callback(node.program.stop)
    with console.status("starting the gateway"):
        gateway = start_gateway(folder / "gateway", orchestrators=[node.url])
        running.callback(gateway.program.stop)
    with console.status("loading the model"):
        gateway.wait_for_model(MODEL)
    console.print(f"node     {node.url}   (admin {node.admin_url})")
    console.print(f"gateway  {gateway.url}   (admin {gateway.admin_url})")
    return node, gateway


def _serve(
    node: Node,
    gateway: Gateway,
    folder: Path,
    wish: Wish,
    console: Console,
    *,
    as_json: bool,
) -> None:
    if as_json:
        line = {
            "gateway_url": gateway.url,
            "gateway_admin_url": gateway.admin_url,
            "api_key": gateway.key,
            "node_url": node.url,
            "node_admin_url": node.admin_url,
            "data_dir": str(folder),
        }
        print(json.dumps(line), flush=True)
    else:
        console.print(f"key      {gateway.key}\n\nTry:\n", soft_wrap=True)
        console.print(curl_line(gateway.url, gateway.key, wish), soft_wrap=True, markup=False)
        console.print("\nRunning until Ctrl-C.")
    while node.program.is_running and gateway.program.is_running:
        time.sleep(0.5)
    raise ProgramError(f"a program ended by itself; see {node.program.log}, {gateway.program.log}")


def _pay_for_one(network: PaidNetwork, wish: Wish, out: Path, console: Console) -> None:
    console.print(f'\n"{wish.prompt}"', markup=False)
    pay_until_one_wins(network, wish, out, _shown(wish, out))
    show_account(network.node, network.gateway, console)
    redeem(network, console)
    show_balances(network, console)


def _shown(wish: Wish, out: Path) -> Path:
    path = wish.file_in(out)
    return path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path


def _make_one(node: Node, gateway: Gateway, wish: Wish, out: Path, console: Console) -> None:
    console.print(f'\n"{wish.prompt}"', markup=False)
    send(wish, gateway, _shown(wish, out))
    show_account(node, gateway, console)
    console.print("\nThe next one, with URL and KEY as `scripts/demo --serve` prints them:\n")
    console.print(curl_line("$URL", "$KEY", wish), soft_wrap=True, markup=False)


if __name__ == "__main__":
    main()
