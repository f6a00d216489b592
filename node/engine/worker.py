"""The worker process: `python -m node.engine.worker CHANNEL_FD`.

Started by the engine with its environment already fixed. Threads: the main one loads models and
takes denoise steps, the finisher decodes and encodes, the reader listens to the engine, the
heartbeat tells that the process lives. Nothing but frames goes over the channel; whatever a
library prints goes to the engine's log through standard output.
"""

import ctypes
import faulthandler
import os
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

from node.engine.batch_book import BatchBook
from node.engine.canary import Canary
from node.engine.channel import Channel, ChannelError, Inbox
from node.engine.finisher import Finisher
from node.engine.loop import DevicePoisonedError, Event, StepLoop
from node.engine.memory import resident_bytes, trim
from node.engine.prompt_cache import PromptCache
from node.engine.protocol import (
    Beat,
    Cancel,
    Dying,
    Hello,
    ModelChanged,
    Setup,
    Stop,
    Submit,
)
from node.engine.shelf import Opener, Shelf
from node.engine.stopwatch import EventLap, HostLap, Lap, Stopwatch
from node.engine.turns import Turns

EXIT_POISONED = 70
_PR_SET_PDEATHSIG = 1
_BEAT_SECONDS = 1.0


def main(arguments: list[str]) -> int:
    """Serve one engine until it stops us or goes away; returns the exit status."""
    _die_with_parent()
    faulthandler.enable()
    # A Ctrl-C reaches the whole process group; the engine decides when its worker ends.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    channel = Channel(socket.socket(fileno=int(arguments[0])))
    setup = channel.receive()
    if not isinstance(setup, Setup):
        return 0 if setup is None else 2
    return _serve(channel, setup)


def _serve(channel: Channel, setup: Setup) -> int:
    inbox: Inbox[Event] = Inbox()
    cancelled: set[int] = set()
    canary = Canary(time.monotonic)
    canary.note("steps", "starting", setup.longest_load)
    _spawn("heartbeat", lambda: _beat(channel, canary))
    _spawn("reader", lambda: _read(channel, inbox, cancelled))
    open_model, relieve, stopwatch, machine, hello = _import_torch(setup.device)
    canary.rest("steps")
    channel.send(hello)
    finisher = Finisher(
        send=channel.send,
        deliver=inbox.put,
        cancelled=cancelled,
        canary=canary,
        longest=setup.longest_step,
    )
    shelf = Shelf(
        setup.models,
        open_model,
        max_models=setup.max_models,
        longest_load=setup.longest_load,
        report=lambda state: channel.send(ModelChanged(state)),
        canary=canary,
        monotonic=time.monotonic,
        relieve=relieve,
    )
    batch_file = None if setup.batch_file is None else Path(setup.batch_file)
    book = BatchBook(batch_file, machine, setup.max_batch)
    loop = StepLoop(
        inbox=inbox,
        cancelled=cancelled,
        send=channel.send,
        shelf=shelf,
        finisher=finisher,
        canary=canary,
        turns=Turns(book, stopwatch, shelf.pace),
        prompts=PromptCache(setup.prompt_cache_bytes),
        max_active_samples=setup.max_active_samples,
        longest_step=setup.longest_step,
        monotonic=time.monotonic,
        relieve=relieve,
    )
    finisher.start()
    try:
        loop.run()
    except DevicePoisonedError as error:
        channel.send(Dying(str(error)))
        return EXIT_POISONED
    return 0


def _import_torch(
    device_name: str,
) -> tuple[Opener, Callable[[], None], Stopwatch, str, Hello]:
    """Import the heavy libraries: seconds, which is why the heartbeat runs already.

    The text names all that the duration of a step depends on, other than the step.
    """
    import torch  # noqa: PLC0415

    from node.engine.families.loading import best_device, open_family  # noqa: PLC0415

    device = best_device(device_name)

    def relieve() -> None:
        trim()
        if device.type == "cuda":
            torch.cuda.empty_cache()

    def lap() -> Lap:
        if device.type == "cuda":
            return EventLap(lambda: torch.cuda.Event(enable_timing=True))
        return HostLap(time.monotonic)

    name = torch.cuda.get_device_name(device) if device.type == "cuda" else device.type
    threads = torch.get_num_threads()
    return (
        lambda path, dtype, on_progress: open_family(path, dtype, device, on_progress),
        relieve,
        lap,
        f"{name}, {threads} threads, torch {torch.__version__}",
        Hello(name, threads),
    )


def _beat(channel: Channel, canary: Canary) -> None:
    while True:
        try:
            channel.send(Beat(canary.activities(), resident_bytes()))
        except OSError:
            return  # the reader sees the end of the stream as well, and ends the process
        time.sleep(_BEAT_SECONDS)


def _read(channel: Channel, inbox: Inbox[Event], cancelled: set[int]) -> None:
    """Feed the loop. The end of the stream ends the process at once, whatever it is at."""
    while True:
        try:
            message = channel.receive()
        except (ChannelError, OSError) as error:
            sys.stderr.write(f"the engine's channel is broken: {error}\n")
            message = None
        match message:
            case None:
                os._exit(0)
            case Setup():
                continue
            case Cancel():
                cancelled.add(message.ticket)
                inbox.put(message)
            case Submit() | Stop():
                inbox.put(message)


def _spawn(name: str, run: Callable[[], None]) -> None:
    threading.Thread(target=run, name=name, daemon=True).start()


def _die_with_parent() -> None:
    """Ask Linux to kill this process when its parent dies, even if all its threads hang."""
    parent = os.getppid()
    try:
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    except (OSError, AttributeError):
        return  # not Linux: the end of the stream has to do
    if os.getppid() != parent:
        os._exit(0)


if __name__ == "__main__":
    # Without the interpreter's tear-down, which takes long once torch is in and saves nothing.
    os._exit(main(sys.argv[1:]))
