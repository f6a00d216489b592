"""The worker process: `python -m node.engine.worker CHANNEL_FD`.

Started by the engine with its environment already fixed. Threads: the main one loads models and
takes denoise steps, the finisher decodes and encodes, the previewer draws what somebody watches, the
reader listens to the engine, the gate prepares LoRAs, the heartbeat tells that the process lives.
Nothing but frames goes over the channel; whatever a library prints goes to the engine's log through
standard output.
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
from dataclasses import dataclass
from pathlib import Path

from network.units import ModelId
from node.config.lora_file import LoraBounds
from node.engine.batch_book import BatchBook
from node.engine.canary import Canary
from node.engine.channel import Channel, ChannelError, Inbox
from node.engine.families.base import Family
from node.engine.faults import is_poison
from node.engine.finisher import Finisher
from node.engine.ladder import Rung
from node.engine.loader import LoadedModel, Opener
from node.engine.loop import DevicePoisonedError, Event, StepLoop
from node.engine.loras.gate import Gate
from node.engine.loras.library import Library
from node.engine.memory import default_budget, resident_bytes, trim
from node.engine.options import NO_CHECKER
from node.engine.previewer import Previewer
from node.engine.prompt_cache import PromptCache
from node.engine.protocol import (
    Beat,
    Cancel,
    Dying,
    Hello,
    Model,
    ModelChanged,
    Setup,
    Stop,
    Submit,
    Watch,
)
from node.engine.residency import Budget
from node.engine.safety import CheckerError, CheckerInLoading, Guard, SafetyChecker
from node.engine.shelf import Estimator, Shelf
from node.engine.stopwatch import EventLap, HostLap, Lap, Stopwatch
from node.engine.turn_log import TurnLog
from node.engine.turns import Turns

EXIT_POISONED = 70
_PR_SET_PDEATHSIG = 1
_BEAT_SECONDS = 1.0


@dataclass(frozen=True, slots=True)
class _Device:
    """What needs torch. `signature` names all that a step's time depends on beside the step."""

    open_model: Opener
    estimate: Estimator
    budget: Budget
    rungs: tuple[Rung, ...]
    relieve: Callable[[], None]
    stopwatch: Stopwatch
    signature: str
    hello: Hello


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
    watched: set[int] = set()
    canary = Canary(time.monotonic)
    canary.note("steps", "starting", setup.longest_load)
    turn_log = TurnLog()
    _spawn("heartbeat", lambda: _beat(channel, canary, turn_log))
    library = Library(
        setup.loras,
        LoraBounds(setup.max_lora_bytes, setup.max_lora_rank),
        setup.lora_cache_bytes,
    )

    def pass_on(message: Submit | Cancel) -> None:
        if isinstance(message, Cancel):
            cancelled.add(message.ticket)
        inbox.put(message)

    # A model may be loading, which nothing may be built beside.
    gate = Gate(pass_on, canary, 2 * setup.longest_load)
    gate.start()
    _spawn("reader", lambda: _read(channel, inbox, gate, watched))
    device = _import_torch(setup, library)
    guard = _open_guard(setup, channel, canary)
    canary.rest("steps")
    channel.send(device.hello)
    finisher = Finisher(
        send=channel.send,
        deliver=inbox.put,
        cancelled=cancelled,
        canary=canary,
        longest=setup.longest_step,
        guard=guard,
    )
    previewer = _previewer(channel, setup, watched, canary, guard)

    def arrived(model_id: ModelId, family: Family) -> None:
        previewer.learn(family)
        if family.loras is not None:
            gate.serve(model_id, family.loras)

    shelf = Shelf(
        setup.models,
        budget=device.budget,
        open_model=device.open_model,
        estimate=device.estimate,
        rungs=device.rungs,
        forget_after=setup.forget_after,
        longest_load=setup.longest_load,
        longest_move=setup.longest_step,
        deliver=inbox.put,
        report=lambda state: channel.send(ModelChanged(state)),
        arrived=arrived,
        canary=canary,
        monotonic=time.monotonic,
        relieve=device.relieve,
    )
    batch_file = None if setup.batch_file is None else Path(setup.batch_file)
    book = BatchBook(batch_file, device.signature, setup.max_batch)
    loop = StepLoop(
        inbox=inbox,
        cancelled=cancelled,
        send=channel.send,
        shelf=shelf,
        finisher=finisher,
        canary=canary,
        turns=Turns(book, device.stopwatch, shelf.pace, turn_log.note),
        prompts=PromptCache(setup.prompt_cache_bytes),
        max_active_samples=setup.max_active_samples,
        longest_step=setup.longest_step,
        monotonic=time.monotonic,
        relieve=device.relieve,
        preview=previewer.offer,
    )
    finisher.start()
    previewer.start()
    try:
        loop.run()
    except DevicePoisonedError as error:
        channel.send(Dying(str(error)))
        return EXIT_POISONED
    except Exception as error:
        if not is_poison(error):
            raise
        channel.send(Dying(type(error).__name__))
        return EXIT_POISONED
    return 0


def _import_torch(setup: Setup, library: Library) -> _Device:
    """Import the heavy libraries: seconds, which is why the heartbeat runs already."""
    import torch  # noqa: PLC0415

    from node.engine.families.loading import (  # noqa: PLC0415
        best_device,
        open_model,
        weight_bytes,
    )

    device = best_device(setup.device)
    on_gpu = device.type == "cuda"

    def relieve() -> None:
        trim()
        if on_gpu:
            torch.cuda.empty_cache()

    def open_one(model: Model, on_progress: Callable[[float], None]) -> LoadedModel:
        with library.building:
            return open_model(
                Path(model.path),
                model.dtype,
                device,
                on_progress,
                setup.acceleration,
                library=library,
                scheduler=model.scheduler,
            )

    def lap() -> Lap:
        if on_gpu:
            stream = torch.cuda.current_stream(device)
            return EventLap(lambda: torch.cuda.Event(enable_timing=True), stream)
        return HostLap(time.monotonic, time.thread_time)

    name = torch.cuda.get_device_name(device) if on_gpu else device.type
    threads = torch.get_num_threads()
    return _Device(
        open_model=open_one,
        estimate=lambda model: weight_bytes(Path(model.path), model.dtype, device),
        budget=_budget(setup, torch.cuda.mem_get_info(device)[1] if on_gpu else None),
        # On a CPU, what left the device would still be in the same memory.
        rungs=(Rung.TILED, Rung.OFFLOADED) if on_gpu else (Rung.TILED,),
        relieve=relieve,
        stopwatch=lap,
        signature=", ".join(
            [
                name,
                f"{threads} threads",
                f"torch {torch.__version__}",
                *([repr(setup.acceleration)] if on_gpu else []),
            ]
        ),
        hello=Hello(name, threads),
    )


def _budget(setup: Setup, device_bytes: int | None) -> Budget:
    """Return what the operator grants, and where they leave it to us, a share of what there is.

    `device_bytes` is None where the device has no memory of its own.
    """
    default = default_budget(device_bytes)
    device = default.device if setup.memory_budget is None else setup.memory_budget
    host = default.host if setup.host_memory_budget is None else setup.host_memory_budget
    return Budget(device, 0 if device_bytes is None else host)


def _previewer(
    channel: Channel, setup: Setup, watched: set[int], canary: Canary, guard: Guard | None
) -> Previewer:
    from node.engine.families.latents import FamilyLatents  # noqa: PLC0415  imports torch

    return Previewer(
        watched=watched,
        send=channel.send,
        latents=FamilyLatents(),
        canary=canary,
        steps=setup.preview_steps,
        interval=setup.preview_interval,
        longest=setup.longest_step,
        monotonic=time.monotonic,
        may_show=lambda job: guard is None or guard.may_preview(asked=job.safety_check),
    )


def _open_guard(setup: Setup, channel: Channel, canary: Canary) -> Guard | None:
    """Begin to load the safety checker; None where there is to be none."""
    options = setup.safety
    if options.checker == NO_CHECKER:
        return None
    from node.engine.checkers.opening import prepare_checker  # noqa: PLC0415  after torch
    from node.engine.families.loading import best_device  # noqa: PLC0415

    try:
        load = prepare_checker(options, str(best_device(setup.device)))
    except CheckerError as error:
        reason = str(error)

        def load() -> SafetyChecker:
            raise CheckerError(reason)

    checker = CheckerInLoading(
        load, report=channel.send, canary=canary, longest_load=setup.longest_load
    )
    checker.start()
    return Guard(options, checker)


def _beat(channel: Channel, canary: Canary, turns: TurnLog) -> None:
    while True:
        try:
            channel.send(Beat(canary.activities(), resident_bytes(), *turns.take()))
        except OSError:
            return  # the reader sees the end of the stream as well, and ends the process
        time.sleep(_BEAT_SECONDS)


def _read(channel: Channel, inbox: Inbox[Event], gate: Gate, watched: set[int]) -> None:
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
                gate.cancel(message)
            case Watch(ticket, wanted):
                (watched.add if wanted else watched.discard)(ticket)
            case Submit():
                gate.submit(message)
            case Stop():
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
