"""`limner-gateway`: the command line. Each command is a module of `gateway.cli`, loaded when asked for."""

import importlib

import click
from typing_extensions import override

from network.runtime import log

_COMMANDS = {
    "run": "Serve clients until told to stop.",
    "doctor": "Look at everything a gateway needs; say what to do.",
    "generate": "Make an image through a running gateway.",
    "keys": "Make, list and revoke clients' keys.",
    "usage": "What was bought, for whom and for how much.",
    "audit": "What operators did, and who.",
    "signer": "Make tickets for clients that hold no key.",
    "wallet": "What the account has, on chain.",
    "fund": "Pay into deposit and reserve.",
    "unlock": "Begin to take deposit and reserve out, or stay after all.",
    "withdraw": "Take deposit and reserve out.",
    "explain": "Who would get a request, and why not the others.",
    "prices": "What orchestrators ask, in wei and in dollars.",
    "migrate": "Turn the flags of a go-livepeer gateway into settings.",
    "orchestrators": "Who is bought from, and what they offer.",
    "address": "Print the account orchestrators know this gateway by.",
    "keystore": "Bring the gateway's account from elsewhere.",
    "version": "Print the version.",
}


class _Commands(click.Group):
    """Loads a command's module only for that command: `generate` needs no database."""

    @override
    def list_commands(self, ctx: click.Context) -> list[str]:
        del ctx
        return list(_COMMANDS)

    @override
    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        del ctx
        if cmd_name not in _COMMANDS:
            return None
        command = importlib.import_module(f"gateway.cli.{cmd_name}").command
        if not isinstance(command, click.Command):
            raise TypeError(f"gateway.cli.{cmd_name}.command is no command")
        return command

    @override
    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        del ctx
        with formatter.section("Commands"):
            formatter.write_dl(list(_COMMANDS.items()))


@click.group(cls=_Commands, context_settings={"help_option_names": ["-h", "--help"]})
def main() -> None:
    """A gateway to decentralised text-to-image: it takes your clients' prompts, buys each image from
    the best orchestrator, pays, and keeps the books.

    \b
    First steps:
      limner-gateway keys create me
      limner-gateway run --orchestrator https://127.0.0.1:8936
      LIMNER_API_KEY=... limner-gateway generate "a small red circle" -o circle.png
    """  # noqa: D301 - click reads \b as a paragraph it must not wrap
    log.configure("error")  # `run` says more


if __name__ == "__main__":
    main()
