"""A worker without torch that speaks the real protocol; each job's prompt says what it does."""

import os
import signal
import socket
import sys
import threading
import time
from pathlib import Path

from network.units import ModelId
from node.engine.channel import Channel
from node.engine.options import NO_CHECKER, SafetyOptions
from node.engine.protocol import (
    Activity,
    Beat,
    Cancel,
    CheckerChanged,
    Dying,
    Failed,
    Hello,
    ImageDone,
    ModelChanged,
    Previewed,
    Setup,
    Started,
    Stepped,
    Stop,
    Submit,
    Watch,
)
from node.engine.work import FailureKind, ModelState

_stuck_since: list[float] = []


def main() -> None:
    """Do what the jobs say until the engine goes away."""
    connected = socket.socket(fileno=int(sys.argv[1]))
    channel = Channel(connected)
    setup = channel.receive()
    if not isinstance(setup, Setup):
        return
    if setup.device == "missing":
        sys.stdout.write("no such device\n")
        os._exit(3)
    threading.Thread(target=_beat, args=(channel,), daemon=True).start()
    channel.send(Hello("fake", 1))
    _tell_of_the_checker(channel, setup.safety)
    for model in setup.models:
        channel.send(ModelChanged(ModelState(ModelId(model.model_id), "ready", 1.0)))
    while (message := channel.receive()) is not None:
        match message:
            case Submit():
                _work(channel, connected, message)
            case Cancel():
                Path(os.environ["FAKE_WORKER_LOG"]).write_text(f"cancelled {message.ticket}")
            case Watch():
                if message.wanted:
                    channel.send(Previewed(message.ticket, 0, 1, b"a preview"))
                else:
                    Path(os.environ["FAKE_WORKER_LOG"]).write_text(f"unwatched {message.ticket}")
            case Stop() | Setup():
                return


def _tell_of_the_checker(channel: Channel, options: SafetyOptions) -> None:
    if Path(options.checker).name == "broken":
        channel.send(CheckerChanged("failed", f"{options.checker} is broken"))
    elif options.checker != NO_CHECKER:
        channel.send(CheckerChanged("ready"))


def _beat(channel: Channel) -> None:
    while True:
        activities = tuple(
            Activity("denoising", time.monotonic() - since, 0.5) for since in _stuck_since
        )
        channel.send(Beat(activities, 123, {1: 2, 4: 1}, 0.5))
        time.sleep(0.1)


def _work(channel: Channel, connected: socket.socket, submit: Submit) -> None:
    action, _, rest = submit.job.prompts[0].partition(" ")
    channel.send(Started(submit.ticket))
    if action.endswith("-once"):
        action = "draw" if Path(rest).exists() else action.removesuffix("-once")
        Path(rest).touch()
    match action:
        case "draw":
            _draw(channel, submit, submit.wanted)
        case "half":
            _draw(channel, submit, submit.wanted[:1])
            os.kill(os.getpid(), signal.SIGKILL)
        case "die":
            os.kill(os.getpid(), signal.SIGKILL)
        case "freeze":
            os.kill(os.getpid(), signal.SIGSTOP)
        case "stick":
            _stuck_since.append(time.monotonic())
        case "babble":
            connected.sendall(b"\x00\x00\x00\x05hello")
        case "poison":
            channel.send(Dying("an illegal memory access"))
            os._exit(70)
        case "environment":
            report = repr({name: value for name, value in os.environ.items() if name in rest})
            channel.send(Failed(submit.ticket, FailureKind.INTERNAL, report))
        case _:
            sys.stdout.write("waiting\n")


def _draw(channel: Channel, submit: Submit, wanted: tuple[int, ...]) -> None:
    for index in wanted:
        channel.send(Stepped(submit.ticket, submit.job.steps))
        png = f"seed {submit.job.seeds[index]}".encode()
        channel.send(ImageDone(submit.ticket, index, png, denoise_seconds=0.5))


if __name__ == "__main__":
    main()
