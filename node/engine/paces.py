"""Remembers what pieces of work took, so that one which takes far more is known to hang."""

import threading
from collections import OrderedDict, deque
from collections.abc import Mapping, Sequence

from node.engine.liveness import effort_limit

_KEPT = 8  # newest efforts of a kind
_MOST_KINDS = 1024  # remembered, least recently used out


class Paces:
    """Efforts in seconds by kind of work. Several threads learn, each its own kinds."""

    def __init__(
        self, known: Mapping[str, Sequence[float]] | None = None, *, on_gpu: bool = False
    ) -> None:
        """`known` is what earlier processes have learned.

        Efforts are processor seconds of the thread that works: a busy machine does not make them
        longer. `on_gpu` they are seconds on the clock.
        """
        self.on_gpu = on_gpu
        self._efforts: OrderedDict[str, deque[float]] = OrderedDict(
            (kind, deque(efforts, maxlen=_KEPT))
            for kind, efforts in (known or {}).items()
            if efforts and min(efforts) >= 0
        )
        self._done_here: set[str] = set()
        self._lock = threading.Lock()

    def learn(self, kind: str, effort: float) -> None:
        """Take in what a piece of work took that came to its end."""
        with self._lock:
            first = kind not in self._done_here
            self._done_here.add(kind)
            if first and self.on_gpu:
                return  # it may have compiled code, which no other one does
            efforts = self._efforts.pop(kind, None) or deque[float](maxlen=_KEPT)
            efforts.append(effort)
            self._efforts[kind] = efforts
            if len(self._efforts) > _MOST_KINDS:
                forgotten, _ = self._efforts.popitem(last=False)
                self._done_here.discard(forgotten)

    def limit(self, kind: str) -> float | None:
        """Return the effort beyond which such work must hang; None while nothing is known."""
        with self._lock:
            efforts = self._efforts.get(kind)
            usual = max(efforts) if efforts else None
            return effort_limit(usual, done_here=kind in self._done_here, on_gpu=self.on_gpu)

    def known(self) -> dict[str, tuple[float, ...]]:
        """Return everything learned, least recently used first."""
        with self._lock:
            return {kind: tuple(efforts) for kind, efforts in self._efforts.items()}
