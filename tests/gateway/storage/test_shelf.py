"""Which images are kept: the youngest, within lifetime, size and count."""

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from gateway.storage.names import ImageName
from gateway.storage.shelf import Held, Shelf

LIFETIME, MOST, COUNT = 10.0, 100, 4


class Keeping(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.shelf = Shelf(lifetime=LIFETIME, max_bytes=MOST, max_count=COUNT)
        self.now = 0.0
        self.known: dict[ImageName, Held] = {}

    @rule(size=st.integers(0, 120))
    def put(self, size: int) -> None:
        name = ImageName("r", str(len(self.known)))
        leaving = self.shelf.put(name, size, self.now)
        self.known[name] = Held(size, self.now)
        assert name in self.shelf
        stayed = [other for other in self.known if other in self.shelf]
        assert all(self.known[gone].stored_at <= self.known[stay].stored_at
                   for gone in leaving for stay in stayed)  # fmt: skip

    @rule(seconds=st.floats(0, 8))
    def wait(self, seconds: float) -> None:
        self.now += seconds

    @rule()
    def expire(self) -> None:
        for name in self.shelf.expire(self.now):
            assert self.now >= self.known[name].stored_at + LIFETIME
        for name, held in self.known.items():
            assert name not in self.shelf or self.now < held.stored_at + LIFETIME

    @rule(data=st.data())
    def find(self, data: st.DataObject) -> None:
        if self.known:
            name = data.draw(st.sampled_from(sorted(self.known, key=lambda one: int(one.name))))
            found = self.shelf.find(name, self.now)
            fresh = self.now < self.known[name].stored_at + LIFETIME
            assert (found is not None) == (name in self.shelf and fresh)

    @rule(data=st.data())
    def forget(self, data: st.DataObject) -> None:
        if self.known:
            name = data.draw(st.sampled_from(sorted(self.known, key=lambda one: int(one.name))))
            self.shelf.forget(name)
            assert name not in self.shelf

    @invariant()
    def the_books_add_up(self) -> None:
        self.shelf.validate()
        assert self.shelf.total_bytes <= MOST or len(self.shelf) == 1
        assert len(self.shelf) <= COUNT


TestKeeping = Keeping.TestCase


def test_what_an_earlier_run_left_is_kept_in_the_order_of_its_age() -> None:
    shelf = Shelf(lifetime=LIFETIME, max_bytes=MOST, max_count=COUNT)
    old, young = ImageName("r", "old"), ImageName("r", "young")
    shelf.restore([(young, Held(60, 5.0)), (old, Held(30, 1.0))])
    assert shelf.put(ImageName("r", "new"), 20, 6.0) == (old,)


def test_what_an_earlier_run_left_beyond_the_bound_goes() -> None:
    shelf = Shelf(lifetime=LIFETIME, max_bytes=MOST, max_count=COUNT)
    names = [ImageName("r", str(number)) for number in range(4)]
    shelf.restore((name, Held(40, float(age))) for age, name in enumerate(names))
    assert shelf.trim() == tuple(names[:2])
    assert shelf.trim() == ()
