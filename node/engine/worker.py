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
from pathlib import Path

from network.units import ModelId
from node.config.lora_file import LoraBounds
from node.engine.batch_book import BatchBook
from node.engine.canary import Canary
from node.engine.channel import Channel, ChannelError, Inbox
from node.engine.device import Device, DeviceOpener, open_device
from node.engine.families.base import Family
from node.engine.faults import is_poison
from node.engine.finisher import Finisher
from node.engine.loop import DevicePoisonedError, Event, StepLoop
from node.engine.loras.gate import Gate
from node.engine.loras.library import Library
from node.engine.memory import resident_bytes
from node.engine.options import NO_CHECKER
from node.engine.previewer import Previewer
from node.engine.prompt_cache import PromptCache
from node.engine.protocol import (
    Beat,
    Cancel,
    Dying,
    ModelChanged,
    Setup,
    Stop,
    Submit,
    Watch,
)
from node.engine.safety import CheckerError, CheckerInLoading, Guard, SafetyChecker
from node.engine.shelf import Shelf
from node.engine.turn_log import TurnLog
from node.engine.turns import Turns

EXIT_POISONED = 70
_PR_SET_PDEATHSIG = 1
_BEAT_SECONDS = 1.0


def main(arguments: list[str], opener: DeviceOpener = open_device) -> int:
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
    return Worker(channel, setup).serve(opener)


class Worker:
    """The parts of a worker, which `serve` puts together and to work."""

    def __init__(self, channel: Channel, setup: Setup) -> None:
        self._channel = channel
        self._setup = setup
        self._inbox: Inbox[Event] = Inbox()
        self._cancelled: set[int] = set()
        self._watched: set[int] = set()
        self._turn_log = TurnLog()
        self._canary = Canary(time.monotonic)
        self._canary.note("steps", "starting", setup.longest_load, kind="read")
        # A model may be loading, which nothing may be built beside.
        self._gate = Gate(self._pass_on, self._canary, 2 * setup.longest_load)

    def serve(self, opener: DeviceOpener) -> int:
        """Work until told to stop; returns the exit status. The heartbeat comes first."""
        setup = self._setup
        _spawn("heartbeat", self._beat)
        self._gate.start()
        _spawn("reader", self._read)
        bounds = LoraBounds(setup.max_lora_bytes, setup.max_lora_rank)
        device = opener(setup, Library(setup.loras, bounds, setup.lora_cache_bytes))
        guard = self.open_guard(device)
        self._canary.rest("steps")
        self._channel.send(device.hello)
        previewer = self.previewer(device, guard)
        loop = self._step_loop(device, guard, previewer)
        previewer.start()
        try:
            loop.run()
        except DevicePoisonedError as error:
            return self._die(str(error))
        except Exception as error:
            if not is_poison(error):
                raise
            return self._die(type(error).__name__)
        return 0

    def open_guard(self, device: Device) -> Guard | None:
        """Begin to load the safety checker; None where there is to be none."""
        options = self._setup.safety
        if options.checker == NO_CHECKER:
            return None
        try:
            load = device.prepare_checker(options)
        except CheckerError as error:
            reason = str(error)

            def load() -> SafetyChecker:
                raise CheckerError(reason)

        checker = CheckerInLoading(
            load,
            report=self._channel.send,
            canary=self._canary,
            longest_load=self._setup.longest_load,
        )
        checker.start()
        return Guard(options, checker)

    def previewer(self, device: Device, guard: Guard | None) -> Previewer:
        """Return what draws previews, as far as the guard lets them be seen."""
        return Previewer(
            watched=self._watched,
            send=self._channel.send,
            latents=device.latents,
            canary=self._canary,
            steps=self._setup.preview_steps,
            interval=self._setup.preview_interval,
            longest=self._setup.longest_step,
            monotonic=time.monotonic,
            may_show=lambda job: guard is None or guard.may_preview(asked=job.safety_check),
        )

    def _step_loop(self, device: Device, guard: Guard | None, previewer: Previewer) -> StepLoop:
        setup = self._setup
        batch_file = None if setup.batch_file is None else Path(setup.batch_file)
        book = BatchBook(batch_file, device.signature, setup.max_batch, on_gpu=device.on_gpu)
        self._canary.measure(book.paces)
        finisher = Finisher(
            send=self._channel.send,
            deliver=self._inbox.put,
            cancelled=self._cancelled,
            canary=self._canary,
            longest=setup.longest_step,
            guard=guard,
        )
        shelf = self._shelf(device, previewer)
        loop = StepLoop(
            inbox=self._inbox,
            cancelled=self._cancelled,
            send=self._channel.send,
            shelf=shelf,
            finisher=finisher,
            canary=self._canary,
            turns=Turns(book, device.stopwatch, shelf.pace, self._turn_log.note),
            prompts=PromptCache(setup.prompt_cache_bytes),
            max_active_samples=setup.max_active_samples,
            longest_step=setup.longest_step,
            monotonic=time.monotonic,
            relieve=device.relieve,
            preview=previewer.offer,
        )
        finisher.start()
        return loop

    def _shelf(self, device: Device, previewer: Previewer) -> Shelf:
        def arrived(model_id: ModelId, family: Family) -> None:
            previewer.learn(family)
            if family.loras is not None:
                self._gate.serve(model_id, family.loras)

        return Shelf(
            self._setup.models,
            budget=device.budget,
            open_model=device.open_model,
            estimate=device.estimate,
            rungs=device.rungs,
            forget_after=self._setup.forget_after,
            longest_load=self._setup.longest_load,
            longest_move=self._setup.longest_step,
            deliver=self._inbox.put,
            report=lambda state: self._channel.send(ModelChanged(state)),
            arrived=arrived,
            canary=self._canary,
            monotonic=time.monotonic,
            relieve=device.relieve,
        )

    def _pass_on(self, message: Submit | Cancel) -> None:
        if isinstance(message, Cancel):
            self._cancelled.add(message.ticket)
        self._inbox.put(message)

    def _beat(self) -> None:
        while True:
            beat = Beat(self._canary.activities(), resident_bytes(), *self._turn_log.take())
            try:
                self._channel.send(beat)
            except OSError:
                return  # the reader sees the end of the stream as well, and ends the process
            time.sleep(_BEAT_SECONDS)

    def _read(self) -> None:
        """Feed the loop. The end of the stream ends the process at once, whatever it is at."""
        while True:
            try:
                message = self._channel.receive()
            except (ChannelError, OSError) as error:
                sys.stderr.write(f"the engine's channel is broken: {error}\n")
                message = None
            match message:
                case None:
                    os._exit(0)
                case Setup():
                    continue
                case Cancel():
                    self._gate.cancel(message)
                case Watch(ticket, wanted):
                    (self._watched.add if wanted else self._watched.discard)(ticket)
                case Submit():
                    self._gate.submit(message)
                case Stop():
                    self._inbox.put(message)

    def _die(self, reason: str) -> int:
        self._channel.send(Dying(reason))
        return EXIT_POISONED


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
