"""Reads models from disk on a thread of its own, one after another, while the loop goes on."""

import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from network.units import ModelId
from node.engine.canary import Canary
from node.engine.families.base import Family
from node.engine.protocol import Model
from node.engine.thrift import Parts

_THREAD = "loader"


class LoadedModel(Parts, Protocol):
    """A model whose weights are in memory: in the host's after loading."""

    @property
    def size(self) -> int:
        """Bytes of its weights, as measured."""

    def attach(self) -> Family:
        """Bring the weights to the device; return the family that works with them there."""

    def detach(self) -> None:
        """Bring the weights to host memory."""

    def can_tile(self) -> bool:
        """Tell whether decoding can be done in tiles."""


#: Opens a model; the second argument is where to report the loaded share (0 to 1).
Opener = Callable[[Model, Callable[[float], None]], LoadedModel]


@dataclass(frozen=True, slots=True)
class Loaded:
    """A model is in host memory after `seconds`, or will not be: `error` says why."""

    model_id: ModelId
    model: LoadedModel | None
    error: Exception | None
    seconds: float


class Loader:
    """Every model asked for comes out as exactly one `Loaded`."""

    def __init__(
        self,
        open_model: Opener,
        *,
        deliver: Callable[[Loaded], None],
        progressed: Callable[[ModelId, float], None],
        canary: Canary,
        monotonic: Callable[[], float],
        longest: float,
    ) -> None:
        """`deliver` and `progressed` are called by the loader's thread."""
        self._open_model = open_model
        self._deliver = deliver
        self._progressed = progressed
        self._canary = canary
        self._monotonic = monotonic
        self._longest = longest
        self._wanted: dict[ModelId, Model] = {}
        self._asked = threading.Condition()
        self._thread = threading.Thread(target=self._run, name=_THREAD, daemon=True)

    def ask(self, model: Model, *, urgent: bool) -> None:
        """Want a model that is neither wanted nor being loaded; urgent ones go first."""
        with self._asked:
            if urgent:
                self._wanted = {ModelId(model.model_id): model} | self._wanted
            else:
                self._wanted[ModelId(model.model_id)] = model
            self._asked.notify()
            if not self._thread.is_alive():
                self._thread.start()

    def hurry(self, model_id: ModelId) -> None:
        """Load a wanted model next; no effect on one that is under way."""
        with self._asked:
            if model_id in self._wanted:
                self._wanted = {model_id: self._wanted[model_id]} | self._wanted

    def _run(self) -> None:
        while True:
            with self._asked:
                while not self._wanted:
                    self._asked.wait()
                model_id = next(iter(self._wanted))
                model = self._wanted.pop(model_id)
            self._deliver(self._load(model_id, model))

    def _load(self, model_id: ModelId, model: Model) -> Loaded:
        began = self._monotonic()
        over = threading.Event()

        def progressed(share: float) -> None:
            if over.is_set():
                return  # what the loop's thread does with it later is no loading
            self._canary.note(_THREAD, "loading", self._longest, kind="read")
            self._progressed(model_id, share)

        try:
            with self._canary.at(_THREAD, "loading", self._longest, kind="read"):
                loaded = self._open_model(model, progressed)
        except Exception as error:  # noqa: BLE001  libraries raise anything; the shelf sorts it
            return Loaded(model_id, None, error, self._monotonic() - began)
        finally:
            over.set()
        return Loaded(model_id, loaded, None, self._monotonic() - began)
