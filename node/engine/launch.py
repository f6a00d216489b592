"""Starts the worker process: its command, its environment, and the socket it talks over."""

import asyncio
import os
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import structlog

from node.engine.protocol import ToWorker, encode_frame

_READ_AHEAD = 4 * 2**20  # bytes of frames kept in memory before the worker has to wait
_EXIT_SECONDS = 2.0
_LINE = 500  # characters of a line of the worker's output that are worth logging
_log = structlog.get_logger("node.engine")
_Value = TypeVar("_Value")
_PACKAGE_ROOT = str(Path(__file__).resolve().parents[2])
_OUR_SECRETS = "LIMNER_"


def worker_command() -> tuple[str, ...]:
    """Return the command line of the real worker, without the channel's descriptor."""
    return (sys.executable, "-P", "-W", "ignore", "-m", "node.engine.worker")


def worker_environment(
    base: Mapping[str, str], threads: int, compiled_dir: Path | None = None
) -> dict[str, str]:
    """Return the worker's environment: `base` without our settings, with what torch must find.

    All of this is read once, while torch and its libraries are imported. Without PASSIVE, OpenMP
    threads spin while they wait, which on shared cores has cost a factor of 90.
    """
    count = str(threads or os.cpu_count() or 1)
    search = [_PACKAGE_ROOT, *filter(None, base.get("PYTHONPATH", "").split(os.pathsep))]
    # The keystore's passphrase may be among our settings; models and their libraries are not
    # trusted with it.
    kept = {name: value for name, value in base.items() if not name.startswith(_OUR_SECRETS)}
    if compiled_dir is not None:
        # By default torch takes a folder below /tmp, which is lost when the machine starts anew.
        kept["TORCHINDUCTOR_CACHE_DIR"] = str(compiled_dir.absolute())
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
        "ORT_DISABLE_TELEMETRY": "1",
        # Below errors, both libraries quote prompts that they cut short.
        "DIFFUSERS_VERBOSITY": "error",
        "TRANSFORMERS_VERBOSITY": "error",
        "MALLOC_ARENA_MAX": "2",
        "PYTORCH_CUDA_ALLOC_CONF": base.get("PYTORCH_CUDA_ALLOC_CONF", "expandable_segments:True"),
    }


@dataclass(frozen=True, slots=True)
class WorkerProcess:
    """A started worker and our end of its channel. `output` is what it prints."""

    process: subprocess.Popen[bytes]
    exit_code: asyncio.Future[int]
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

    async def log_output(self) -> None:
        """Log what the worker prints, until it closes its output."""
        rest = b""
        while chunk := await self.output.read(4096):
            *lines, rest = (rest + chunk).replace(b"\r", b"\n").split(b"\n")
            rest = rest[-_LINE:]
            for line in lines:
                text = line[:_LINE].decode(errors="replace").strip()
                if text:
                    _log.info("engine.worker_output", line=text)

    async def end(self) -> str:
        """End the process and say how it ended: it goes when its channel closes, or is killed."""
        self.writer.close()
        with suppress(OSError):
            await self.writer.wait_closed()
        with suppress(TimeoutError):
            async with asyncio.timeout(_EXIT_SECONDS):
                await asyncio.shield(self.exit_code)
        self.kill()
        code = await self.exit_code
        return f"signal {-code}" if code < 0 else f"exit status {code}"

    def kill(self) -> None:
        """End the process at once, stopped ones too."""
        self.process.kill()


async def launch(command: Sequence[str], environment: Mapping[str, str]) -> WorkerProcess:
    """Start a worker. Raises OSError when the command cannot be run."""
    loop = asyncio.get_running_loop()
    ours, theirs = socket.socketpair()
    printed, printing = os.pipe()
    started: asyncio.Future[subprocess.Popen[bytes]] = loop.create_future()
    exit_code: asyncio.Future[int] = loop.create_future()

    def own() -> None:
        """Start the process and wait for its end, off the loop: starting one blocks.

        The worker asks Linux to be killed together with the thread that started it, so this
        thread must last as long as the worker, and no longer than this process.
        """
        try:
            process = subprocess.Popen(  # noqa: S603  the command is ours
                [*command, str(theirs.fileno())],
                stdin=subprocess.DEVNULL,
                stdout=printing,
                stderr=subprocess.STDOUT,
                pass_fds=(theirs.fileno(),),
                env=dict(environment),
            )
        except OSError as error:
            _tell(loop, started.set_exception, error)
            return
        finally:
            theirs.close()
            os.close(printing)
        _tell(loop, started.set_result, process)
        _tell(loop, exit_code.set_result, process.wait())

    threading.Thread(target=own, name="worker-owner", daemon=True).start()
    try:
        process = await asyncio.shield(started)
        output = await _read_pipe(printed)
        reader, writer = await asyncio.open_connection(sock=ours, limit=_READ_AHEAD)
    except BaseException:
        ours.close()  # which ends the worker, too, if it was started
        raise
    return WorkerProcess(process, exit_code, output, reader, writer)


async def _read_pipe(descriptor: int) -> asyncio.StreamReader:
    reader = asyncio.StreamReader()
    await asyncio.get_running_loop().connect_read_pipe(
        lambda: asyncio.StreamReaderProtocol(reader), os.fdopen(descriptor, "rb", 0)
    )
    return reader


def _tell(
    loop: asyncio.AbstractEventLoop, settle: Callable[[_Value], None], value: _Value
) -> None:
    with suppress(RuntimeError):  # the loop was closed before its worker had ended
        loop.call_soon_threadsafe(settle, value)
