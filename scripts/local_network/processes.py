"""One started program: waits for its line of readiness, ends it by its id, never outlives whoever started it."""

import ctypes
import json
import os
import selectors
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Self

PR_SET_PDEATHSIG = 1
LOG_TAIL_LINES = 20


class ProgramError(Exception):
    """A program ended, or did not become ready in time; the message holds the end of its log."""


@dataclass(frozen=True, slots=True)
class Ready:
    """What a program says about itself once it serves (`run --json-ready`)."""

    url: str
    admin_url: str
    address: str


def _end_with_parent() -> None:
    """Linux: ask the kernel for SIGTERM when the parent dies, so that not even SIGKILL of it leaves children behind."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGTERM)


class Program:
    """A running `limner-node` or `limner-gateway`; one without an admin port tells no URL of it."""

    def __init__(self, process: subprocess.Popen[bytes], ready: Ready, log: Path) -> None:
        self.ready = ready
        self.log = log
        self._process = process

    @classmethod
    def start(
        cls,
        command: Sequence[str],
        *,
        log: Path,
        environment: Mapping[str, str] | None = None,
        seconds: float = 60,
    ) -> Self:
        """Run `command` until it prints its line of readiness on stdout; stderr goes to `log`.

        Raises ProgramError when it ends before that, or takes longer than `seconds`.
        """
        log.parent.mkdir(parents=True, exist_ok=True)
        with log.open("ab") as errors:
            process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=errors,
                env={**os.environ, **(environment or {})},
                # A terminal's Ctrl-C reaches only whoever started this; that one stops us in order.
                start_new_session=True,
                preexec_fn=_end_with_parent,  # noqa: PLW1509 - no other thread holds a lock here
            )
        try:
            line = _first_line(process, seconds)
            said = json.loads(line)
            ready = Ready(said["url"], said.get("admin_url", ""), said.get("address", ""))
        except (TimeoutError, ValueError, KeyError) as error:
            process.kill()
            process.wait()
            tail = "\n".join(log.read_text(errors="replace").splitlines()[-LOG_TAIL_LINES:])
            message = f"{command[0]} did not become ready ({error}); the end of {log}:\n{tail}"
            raise ProgramError(message) from error
        return cls(process, ready, log)

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def is_running(self) -> bool:
        return self._process.poll() is None

    def stop(self, seconds: float = 20) -> int:
        """Ask it to end and wait; kill it if it does not. Returns its exit status."""
        if self.is_running:
            self._process.terminate()
        try:
            return self._process.wait(seconds)
        except subprocess.TimeoutExpired:
            self.kill()
            return self._process.wait()
        finally:
            self._close()

    def kill(self) -> None:
        """SIGKILL, as a power cut would: nothing is flushed, nobody is told."""
        self._process.kill()
        self._process.wait()
        self._close()

    def _close(self) -> None:
        if self._process.stdout is not None:
            self._process.stdout.close()


def _first_line(process: subprocess.Popen[bytes], seconds: float) -> bytes:
    stream = process.stdout
    if stream is None:
        message = "stdout is not a pipe"
        raise ValueError(message)
    deadline = time.monotonic() + seconds
    found = b""
    while not found.endswith(b"\n"):
        if not _readable(stream, deadline - time.monotonic()):
            message = f"nothing heard for {seconds:.0f} s"
            raise TimeoutError(message)
        chunk = os.read(stream.fileno(), 65536)
        if not chunk:
            message = f"it ended with status {process.wait()}"
            raise ValueError(message)
        found += chunk
    return found


def _readable(stream: IO[bytes], seconds: float) -> bool:
    with selectors.DefaultSelector() as selector:
        selector.register(stream, selectors.EVENT_READ)
        return bool(selector.select(max(seconds, 0)))
