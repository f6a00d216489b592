"""A chain by anvil, an Ethereum node for development, in a process of its own."""

import ctypes
import functools
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from network.errors import LimnerError

#: Names the program where it is not on the PATH.
VARIABLE: Final = "ANVIL"
_PR_SET_PDEATHSIG: Final = 1
_IN_A_CHECKOUT: Final = (
    Path(__file__).resolve().parents[2]
    / "scripts/solidity/node_modules/@foundry-rs/anvil-linux-amd64/bin/anvil"
)
_READY: Final = b'{"jsonrpc":"2.0","id":1,"method":"eth_chainId","params":[]}'
_STOP_SECONDS: Final = 10.0
#: Blocks whose state can be asked. Without a bound anvil writes the states of all blocks to the
#: user's home, some 60 MB for a thousand, and leaves them there.
_KEPT_STATES: Final = 256
#: Found before there is a child: what runs between fork and exec may load nothing.
_LIBC: Final = ctypes.CDLL(None) if sys.platform == "linux" else None


class AnvilError(LimnerError):
    """The chain's program did not start, or ended by itself."""


@dataclass(frozen=True, slots=True)
class AnvilOptions:
    """`state_file` None: nothing is kept."""

    port: int
    chain_id: int
    state_file: Path | None = None


def find_anvil() -> Path | None:
    """The program: named by the environment, on the PATH, or installed in this checkout."""
    named = os.environ.get(VARIABLE)
    if named:
        return Path(named)
    found = shutil.which("anvil")
    if found is not None:
        return Path(found)
    return _IN_A_CHECKOUT if _IN_A_CHECKOUT.exists() else None


class Anvil:
    """A running anvil."""

    def __init__(self, process: subprocess.Popen[bytes], url: str) -> None:
        self._process = process
        self.url: Final = url

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def is_running(self) -> bool:
        return self._process.poll() is None

    def stop(self) -> None:
        """Ask it to write its state and end; kill it if it does not."""
        if self.is_running:
            self._process.terminate()
        try:
            self._process.wait(_STOP_SECONDS)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()


@contextmanager
def running_anvil(
    program: Path, options: AnvilOptions, log: Path, *, seconds: float = 20
) -> Iterator[Anvil]:
    """Run anvil on loopback for the length of the block; blocking, as is the wait for its start.

    Each transaction has a block of its own until `evm_setIntervalMining`, and nobody has any ether until
    `anvil_setBalance`: its own accounts would take words on its command line, which all can read.
    The thread that calls has to live as long: anvil ends with it.

    Raises AnvilError with the end of its log when it does not answer within `seconds`.
    """
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("ab") as output:
        try:
            process = subprocess.Popen(  # noqa: S603 - the operator's own program
                _command(program, options),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                # A terminal's Ctrl-C reaches us alone, and we stop it in order.
                start_new_session=True,
                preexec_fn=functools.partial(  # noqa: PLW1509 - takes no lock
                    _end_with_parent, os.getpid()
                ),
            )
        except OSError as error:
            raise AnvilError(
                f"cannot start {program}: {error.strerror}; correct ${VARIABLE} if it names that, "
                "or go without anvil: --no-anvil"
            ) from error
    anvil = Anvil(process, f"http://127.0.0.1:{options.port}")
    try:
        _await(anvil, log, seconds)
        yield anvil
    finally:
        anvil.stop()


def free_port() -> int:
    """A loopback port that nobody listens on just now."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        port: int = server.getsockname()[1]
        return port


def _command(program: Path, options: AnvilOptions) -> Sequence[str]:
    command = [str(program), "--host", "127.0.0.1", "--port", str(options.port), "--quiet"]
    command += ["--chain-id", str(options.chain_id), "--accounts", "0"]
    command += ["--prune-history", str(_KEPT_STATES)]
    # A chain of our own has cheap gas, so that small tickets are worth redeeming.
    command += ["--block-base-fee-per-gas", "1000", "--disable-min-priority-fee"]
    if options.state_file is not None:
        command += ["--state", str(options.state_file), "--state-interval", "5"]
    return command


def _await(anvil: Anvil, log: Path, seconds: float) -> None:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline and anvil.is_running:
        request = urllib.request.Request(  # noqa: S310 - our own loopback address
            anvil.url, data=_READY, headers={"Content-Type": "application/json"}
        )
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        try:
            with opener.open(request, timeout=2):
                return
        except (urllib.error.URLError, OSError):
            time.sleep(0.02)
    raise AnvilError(f"anvil did not answer at {anvil.url}; the end of {log}:\n{end_of(log)}")


def end_of(log: Path) -> str:
    """What anvil said last."""
    return log.read_text(errors="replace")[-2000:]


def _end_with_parent(parent: int) -> None:
    """Linux: ask the kernel for SIGTERM when the parent dies, so that not even its SIGKILL leaves a chain behind."""
    if _LIBC is not None:
        _LIBC.prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
        if os.getppid() != parent:  # it died before we asked
            os._exit(1)
