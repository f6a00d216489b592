"""The prompt cache: within its bytes, most recently used kept."""

from collections import OrderedDict
from dataclasses import dataclass

import numpy as np
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from node.engine.prompt_cache import PromptCache, held_bytes

_ROOM = 100


@dataclass(frozen=True, slots=True)
class _Encoded:
    positive: "np.ndarray[tuple[int], np.dtype[np.uint8]]"
    negative: "np.ndarray[tuple[int], np.dtype[np.uint8]] | None"


def test_the_bytes_of_all_tensors_count_wherever_they_are() -> None:
    block = np.zeros(10, dtype=np.float32)
    assert held_bytes(block) == 40
    assert held_bytes(_Encoded(np.zeros(7, np.uint8), None)) == 7
    assert held_bytes({"a": [block, (block, "text")], "b": _Encoded(np.ones(1, np.uint8), None)})
    assert held_bytes({"a": [block, (block, "text")]}) == 80
    assert held_bytes("text") == held_bytes(None) == held_bytes(3) == 0


def test_what_is_larger_than_the_cache_is_not_kept_and_drives_nothing_out() -> None:
    cache = PromptCache(_ROOM)
    cache.put("small", np.zeros(60, np.uint8))
    cache.put("huge", np.zeros(101, np.uint8))
    assert cache.get("huge") is None
    assert cache.get("small") is not None


class _Machine(RuleBasedStateMachine):
    """A plain list of entries, oldest use first, says what must be there."""

    def __init__(self) -> None:
        super().__init__()
        self.cache = PromptCache(_ROOM)
        self.model: OrderedDict[int, int] = OrderedDict()

    @rule(key=st.integers(0, 5), size=st.integers(0, 120))
    def put(self, key: int, size: int) -> None:
        self.cache.put(key, np.zeros(size, np.uint8))
        if size > _ROOM:
            return
        self.model.pop(key, None)
        self.model[key] = size
        while sum(self.model.values()) > _ROOM:
            self.model.popitem(last=False)

    @rule(key=st.integers(0, 5))
    def get(self, key: int) -> None:
        found = self.cache.get(key)
        assert (None if found is None else found.nbytes) == self.model.get(key)
        if found is not None:
            self.model.move_to_end(key)

    @rule()
    def clear(self) -> None:
        self.cache.clear()
        self.model.clear()

    @invariant()
    def holds_what_it_says(self) -> None:
        assert self.cache.bytes == sum(self.model.values()) <= _ROOM


TestPromptCache = _Machine.TestCase
