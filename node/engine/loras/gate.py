"""Holds jobs back until their LoRAs are read and fitted, so that no step waits for that."""

import queue
import threading
import weakref
from collections.abc import Callable

from node.engine.canary import Canary
from node.engine.families.base import Loras
from node.engine.protocol import Cancel, Submit


class Gate:
    """Passes on each Submit and Cancel, in an order that makes sense to the step loop.

    Jobs are not held back for a model that is not loaded, and not for long for a LoRA that cannot
    be used: their first step prepares what is missing, and says why it fails.
    """

    def __init__(
        self, pass_on: Callable[[Submit | Cancel], None], canary: Canary, longest: float
    ) -> None:
        self._pass_on = pass_on
        self._canary = canary
        self._longest = longest
        #: weak: a model that is dropped takes its LoRAs with it
        self._models: weakref.WeakValueDictionary[str, Loras] = weakref.WeakValueDictionary()
        self._held: set[int] = set()
        self._lock = threading.Lock()
        self._queue: queue.SimpleQueue[Submit] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._run, name="loras", daemon=True)

    def start(self) -> None:
        """Begin to prepare LoRAs."""
        self._thread.start()

    def serve(self, model_id: str, loras: Loras) -> None:
        """Prepare the LoRAs of a model that is loaded now, for as long as it is."""
        self._models[model_id] = loras

    def submit(self, message: Submit) -> None:
        """Take a job in; returns at once."""
        loras = self._models.get(message.job.model_id)
        if loras is None or all(loras.holds(name) for name, _ in message.job.lora_set):
            self._pass_on(message)
            return
        with self._lock:
            self._held.add(message.ticket)
        self._queue.put(message)

    def cancel(self, message: Cancel) -> None:
        """Forget a job that is held back here, or pass its cancellation on."""
        with self._lock:
            if message.ticket in self._held:
                self._held.remove(message.ticket)
                return
        self._pass_on(message)

    def _run(self) -> None:
        while True:
            message = self._queue.get()
            if message.ticket in self._held:
                self._prepare(message)
            with self._lock:
                # Within the lock: a cancellation must not overtake the job that it is for.
                if message.ticket in self._held:
                    self._held.remove(message.ticket)
                    self._pass_on(message)

    def _prepare(self, message: Submit) -> None:
        loras = self._models.get(message.job.model_id)
        if loras is None:
            return
        missing = [name for name, _ in message.job.lora_set if not loras.holds(name)]
        for name in missing:
            try:
                # A model may be loading, which nothing is built beside.
                with self._canary.at("loras", "preparing a LoRA", self._longest, kind="wait"):
                    loras.prepare(name)
            except Exception:  # noqa: BLE001  the step loop meets it again, and sorts it
                return
