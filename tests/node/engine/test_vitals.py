"""Telling from outside whether a process is at something."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from node.engine.vitals import is_stirring


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
