"""The command `limner-node`. Its commands are in `node.cli`, loaded when asked for."""

import importlib
from importlib.metadata import version as distribution_version
from typing import Final

import click
from typing_extensions import override

from network.runtime import log

#: Name, where it is, and what it does.
_COMMANDS: Final = {
    "run": ("node.cli.run:run", "Run the node until it is told to stop (Ctrl-C or SIGTERM)."),
    "runner": (
        "node.cli.runner:runner",
        "Make images for a go-livepeer orchestrator, as its ai-runner.",
    ),
    "doctor": ("node.cli.doctor:doctor", "Look at everything a node needs; say what to do."),
    "models": ("node.cli.models:models", "List, add, pull and verify models."),
    "bench": ("node.cli.bench:bench", "Measure the models here, and what a pixel has to cost."),
    "prices": ("node.cli.prices:prices", "Tell what each model costs, in wei and in dollars."),
    "migrate": (
        "node.cli.migrate:migrate",
        "Turn the flags of a go-livepeer orchestrator into settings.",
    ),
    "jobs": ("node.cli.journal:jobs", "List accepted jobs, the newest first."),
    "earnings": ("node.cli.journal:earnings", "Sum up what was earned, to the wei."),
    "runners": ("node.cli.runners:runners", "List the apps of others that the node sells."),
    "redemptions": (
        "node.cli.redemptions:redemptions",
        "Show winning tickets and what they paid.",
    ),
    "activate": (
        "node.cli.registration:activate",
        "Become an orchestrator that is paid by ticket.",
    ),
    "wallet": (
        "node.cli.wallet:wallet",
        "Show the account on its chain; withdraw fees and stake.",
    ),
    "bond": ("node.cli.registration:bond", "Stake more LPT."),
    "unbond": ("node.cli.registration:unbond", "Take LPT out of the stake."),
    "service-uri": ("node.cli.registration:service_uri", "Register where gateways find the node."),
    "reward": ("node.cli.registration:reward", "Mint the LPT of this round."),
    "address": ("node.cli.address:address", "Print the node's account."),
    "keystore": ("node.cli.keystore:keystore", "Bring the node's account from elsewhere."),
    "version": ("node.__main__:version", "Print the version."),
}


class _Commands(click.Group):
    """Loads a command's module only for that command: the others start without its libraries."""

    @override
    def list_commands(self, ctx: click.Context) -> list[str]:
        del ctx
        return list(_COMMANDS)

    @override
    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        del ctx
        if cmd_name not in _COMMANDS:
            return None
        module, _, name = _COMMANDS[cmd_name][0].partition(":")
        command = getattr(importlib.import_module(module), name)
        if not isinstance(command, click.Command):
            raise TypeError(f"{module}.{name} is no command")
        return command

    @override
    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        del ctx
        with formatter.section("Commands"):
            formatter.write_dl([(name, what) for name, (_, what) in _COMMANDS.items()])


@click.group(
    cls=_Commands,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)
def main() -> None:
    """Make images for gateways of Livepeer's network, and earn by the pixel.

    \b
    Start with the built-in model, for this machine only:
        limner-node run
    See how fast it is here, and what a pixel has to cost:
        limner-node bench --cost-per-hour 0.40 --usd-per-eth 3000
    See what came in:
        limner-node jobs
        limner-node earnings --by model

    Settings come from a file (--config), then from the environment (LIMNER_NODE__LISTEN and so
    on, with two underscores for a table: LIMNER_NODE__LOG__LEVEL), then from the options here.
    """  # noqa: D301  click reads \b as a paragraph it must not wrap
    log.configure("warning")  # `run` says more; standard output is for what a command tells


@click.command()
def version() -> None:
    """Print the version."""
    click.echo(distribution_version("limner"))


if __name__ == "__main__":
    main()
