"""Telling from outside whether a process is at something."""

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from node.engine.liveness import is_still
from node.engine.vitals import is_stirring, stirring_threads, thread_pulse


@contextmanager
def _process(program: str) -> Iterator[int]:
    process = subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE)
    try:
        assert process.stdout is not None
        process.stdout.readline()
        yield process.pid
    finally:
        process.kill()
        process.communicate()


def _soon(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_a_process_that_runs_stirs_and_a_stopped_one_does_not() -> None:
    with _process("print(flush=True)\nwhile True: pass") as pid:
        assert is_stirring(pid)
        os.kill(pid, signal.SIGSTOP)
        _soon(lambda: not is_stirring(pid))


def test_a_process_stirs_whose_main_thread_waits_for_one_that_runs() -> None:
    program = """
import threading
def spin():
    print(flush=True)
    while True: pass
thread = threading.Thread(target=spin)
thread.start()
thread.join()
"""
    with _process(program) as pid:
        _soon(lambda: is_stirring(pid))


def test_a_process_whose_threads_only_wait_does_not_stir() -> None:
    with _process("import threading\nprint(flush=True)\nthreading.Event().wait()") as pid:
        _soon(lambda: not is_stirring(pid))


def test_of_a_process_that_is_gone_nothing_is_claimed() -> None:
    with _process("print()") as pid:
        pass
    assert is_stirring(pid)


def test_a_thread_of_this_process_that_works_has_a_pulse_and_one_that_waits_has_none() -> None:
    ids: dict[str, int] = {}
    working, may_end = threading.Event(), threading.Event()

    def work() -> None:
        ids["work"] = threading.get_native_id()
        working.set()
        while not may_end.is_set():
            pass

    def wait() -> None:
        ids["wait"] = threading.get_native_id()
        may_end.wait()

    threads = [threading.Thread(target=work), threading.Thread(target=wait)]
    for thread in threads:
        thread.start()
    try:
        working.wait(20)
        first = thread_pulse(ids["work"])
        assert first is not None
        _soon(lambda: not is_still(first, thread_pulse(ids["work"])))
        _soon(lambda: (pulse := thread_pulse(ids["work"])) is not None and pulse.used > first.used)
        resting = thread_pulse(ids["wait"])
        assert resting is not None
        _soon(lambda: ids["work"] in stirring_threads() and ids["wait"] not in stirring_threads())
        _soon(lambda: is_still(resting, thread_pulse(ids["wait"])))
    finally:
        may_end.set()
        for thread in threads:
            thread.join()
    # Python is done with a thread a moment before the system is.
    _soon(lambda: thread_pulse(ids["work"]) is None)


#: A process of its own, for this one's children are those of other tests as well.
_PARENT = """
import os, signal, subprocess, sys, time
from pathlib import Path
from node.engine.vitals import children_stir

def soon(condition):
    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)

assert not children_stir()
nested = "import subprocess, sys; subprocess.run([sys.executable, '-c', 'while True: pass'])"
child = subprocess.Popen([sys.executable, "-c", nested])
children = Path(f"/proc/{child.pid}/task/{child.pid}/children")
soon(lambda: bool(children.read_text().strip()))
(spinning,) = children.read_text().split()
# Until it has become another program its parent waits for it, as if for a disk.
program = Path(f"/proc/{spinning}/cmdline")
soon(lambda: program.read_bytes().split(b"\\0")[-2:] == [b"while True: pass", b""])
try:
    soon(children_stir)
    os.kill(int(spinning), signal.SIGSTOP)
    soon(lambda: not children_stir())
finally:
    os.kill(int(spinning), signal.SIGKILL)
    child.wait()
"""


def test_a_process_sees_its_children_and_theirs_stir() -> None:
    """As compilers do, for which a thread may wait long."""
    done = subprocess.run(
        [sys.executable, "-c", _PARENT], capture_output=True, text=True, check=False, timeout=200
    )
    assert done.returncode == 0, done.stderr
