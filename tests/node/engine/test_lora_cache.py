"""The bound of the LoRAs that are kept, by random walks."""

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from node.engine.loras.cache import ByteCache

_NAMES = st.sampled_from("abcdefgh")
_BOUND = 100


class _Walk(RuleBasedStateMachine):
    """Against a plain list in order of use."""

    def __init__(self) -> None:
        super().__init__()
        self.cache: ByteCache[str, int] = ByteCache(_BOUND)
        self.model: list[tuple[str, int, int]] = []  # least recently used first
        self.numbers = 0

    @rule(name=_NAMES, size=st.integers(1, 130))
    def put(self, name: str, size: int) -> None:
        self.numbers += 1
        self.cache.put(name, self.numbers, size)
        self.model = [entry for entry in self.model if entry[0] != name]
        self.model.append((name, self.numbers, size))
        while sum(size for *_, size in self.model) > _BOUND and len(self.model) > 1:
            del self.model[0]

    @rule(name=_NAMES)
    def use(self, name: str) -> None:
        known = [entry for entry in self.model if entry[0] == name]
        assert self.cache.use(name) == (known[0][1] if known else None)
        if known:
            self.model.remove(known[0])
            self.model.append(known[0])

    @invariant()
    def holds_what_the_list_holds(self) -> None:
        assert len(self.cache) == len(self.model)
        assert all(name in self.cache for name, *_ in self.model)
        assert self.cache.held_bytes == sum(size for *_, size in self.model)
        assert self.cache.held_bytes <= _BOUND or len(self.cache) == 1


test_the_least_recently_used_go_first_and_the_bound_holds = _Walk.TestCase
