"""Starts the worker process: its command, its environment, and the socket it talks over."""

import asyncio
import os
import socket
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from node.engine.protocol import ToWorker, encode_frame

_READ_AHEAD = 4 * 2**20  # bytes of frames kept in memory before the worker has to wait
_EXIT_SECONDS = 2.0
_OUR_SECRETS = "LIMNER_"


def worker_command() -> tuple[str, ...]:
    """Return the command line of the real worker, without the channel's descriptor."""
    return (sys.executable, "-P", "-W", "ignore", "-m", "node.engine.worker")


def worker_environment(base: Mapping[str, str], threads: int) -> dict[str, str]:
    """Return the worker's environment: `base` without our settings, with what torch must find.

    All of this is read once, while torch and its libraries are imported. Without PASSIVE, OpenMP
    threads spin while they wait, which on shared cores has cost a factor of 90.
    """
    count = str(threads or os.cpu_count() or 1)
    package_root = str(Path(__file__).resolve().parents[2])
    search = [package_root, *filter(None, base.get("PYTHONPATH", "").split(os.pathsep))]
    # The keystore's passphrase may be among our settings; models and their libraries are not
    # trusted with it.
    kept = {name: value for name, value in base.items() if not name.startswith(_OUR_SECRETS)}
    return kept | {
        "PYTHONPATH": os.pathsep.join(dict.fromkeys(search)),
        "PYTHONUNBUFFERED": "1",
        "OMP_WAIT_POLICY": "PASSIVE",
        "OMP_NUM_THREADS": count,
        "MKL_NUM_THREADS": count,
        "KMP_BLOCKTIME": "0",
        "TOKENIZERS_PARALLELISM": "false",
        "HF_HUB_OFFLINE": "1",
        "HF_HUB_DISABLE_TELEMETRY": "1",
        "HF_HUB_DISABLE_PROGRESS_BARS": "1",
        "DO_NOT_TRACK": "1",
        # Below errors, both libraries quote prompts that they cut short.
        "DIFFUSERS_VERBOSITY": "error",
        "TRANSFORMERS_VERBOSITY": "error",
        "MALLOC_ARENA_MAX": "2",
        "PYTORCH_CUDA_ALLOC_CONF": base.get("PYTORCH_CUDA_ALLOC_CONF", "expandable_segments:True"),
    }


@dataclass(frozen=True, slots=True)
class WorkerProcess:
    """A started worker and our end of its channel. `output` is what it prints."""

    process: asyncio.subprocess.Process
    output: asyncio.StreamReader
    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter

    @property
    def pid(self) -> int:
        return self.process.pid

    def send(self, message: ToWorker) -> None:
        """Send without waiting: what we send is small, and bounded by the number of jobs."""
        if not self.writer.is_closing():
            self.writer.write(encode_frame(message))

    async def end(self) -> str:
        """End the process and say how it ended: it goes when its channel closes, or is killed."""
        self.writer.close()
        with suppress(OSError):
            await self.writer.wait_closed()
        try:
            async with asyncio.timeout(_EXIT_SECONDS):
                await self.process.wait()
        except TimeoutError:
            self.kill()
        code = await self.process.wait()
        return f"signal {-code}" if code < 0 else f"exit status {code}"

    def kill(self) -> None:
        """End the process at once, stopped ones too."""
        with suppress(ProcessLookupError):
            self.process.kill()


async def launch(command: Sequence[str], environment: Mapping[str, str]) -> WorkerProcess:
    """Start a worker. Raises OSError when the command cannot be run."""
    ours, theirs = socket.socketpair()
    try:
        with theirs:
            process = await asyncio.create_subprocess_exec(
                *command,
                str(theirs.fileno()),
                stdin=asyncio.subprocess.DEVNULL,
                stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.STDOUT,
                pass_fds=(theirs.fileno(),),
                env=dict(environment),
            )
        reader, writer = await asyncio.open_connection(sock=ours, limit=_READ_AHEAD)
    except BaseException:
        ours.close()
        raise
    if process.stdout is None:
        raise RuntimeError("a pipe was asked for")
    return WorkerProcess(process, process.stdout, reader, writer)
