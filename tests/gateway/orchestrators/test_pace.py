"""What is believed of those who were not measured follows from those who were."""

from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from gateway.orchestrators.pace import CLASSES, Beliefs, Figures, Pace, Paces, size_class, spread
from network.units import ModelId

M = ModelId("m")
URIS = st.sampled_from(["a", "b", "c", "d", "e"])


@given(st.dictionaries(st.integers(0, CLASSES - 1), st.integers(1, 10**12), min_size=1))
def test_every_size_has_the_figure_of_the_nearest_that_was_measured(known: dict[int, int]) -> None:
    table = spread(known)
    assert len(table) == CLASSES
    for size, figure in enumerate(table):
        nearest = min(abs(size - one) for one in known)
        assert figure in {known[one] for one in known if abs(size - one) == nearest}
    assert {size: table[size] for size in known} == known


def test_of_two_neighbours_the_larger_tells() -> None:
    assert spread({4: 1, 6: 9})[5] == 9
    assert spread({}) == ()


@given(st.integers(1, 10**9), st.integers(1, 10**9))
def test_images_of_one_class_differ_less_than_twofold(one: int, other: int) -> None:
    if size_class(one) == size_class(other) < CLASSES - 1:
        assert max(one, other) < 2 * min(one, other)
    assert 0 <= size_class(one) < CLASSES


def test_sizes_have_paces_of_their_own() -> None:
    paces = Paces.none().then(19, Pace(100, 10)).then(21, Pace(300, 10)).then(21, Pace(500, 10))
    assert (paces.at(19), paces.at(21), paces.at(20)) == (10, 40, None)
    assert (paces.table[0], paces.table[19], paces.table[20], paces.table[24]) == (10, 10, 40, 40)


class Measuring(RuleBasedStateMachine):
    """Orchestrators are measured, measured again, and leave."""

    def __init__(self) -> None:
        super().__init__()
        self.figures = Figures()
        self.model: dict[str, int] = {}

    @rule(uri=URIS, figure=st.integers(1, 4))
    def measure(self, uri: str, figure: int) -> None:
        self.model[uri] = figure
        self.figures.put(uri, figure)

    @rule(uri=URIS)
    def leave(self, uri: str) -> None:
        self.model.pop(uri, None)
        self.figures.remove(uri)

    @invariant()
    def each_counts_once(self) -> None:
        ordered = sorted(self.model.values())
        middle = ordered[len(ordered) // 2] if ordered else None
        assert self.figures.at(50) == middle
        assert self.figures.at(0) == min(ordered, default=None)
        assert self.figures.at(99) == max(ordered, default=None)


TestMeasuring = Measuring.TestCase


def test_beliefs_follow_what_is_measured_and_who_is_there() -> None:
    beliefs = Beliefs()
    assert beliefs.paces(M) == ()
    assert beliefs.load(M) is None
    for uri, pace in [("a", 10), ("b", 20), ("c", 90)]:
        beliefs.learn_pace(uri, M, 19, pace)
        beliefs.learn_load(uri, M, pace)
    assert min(beliefs.paces(M)) >= 10
    assert beliefs.paces(ModelId("other")) == ()
    beliefs.forget("a")
    beliefs.forget("b")
    assert set(beliefs.paces(M)) == {90}
    assert beliefs.load(M) == 90
    beliefs.learn_pace("c", M, 21, 200)
    assert (beliefs.paces(M)[19], beliefs.paces(M)[21]) == (90, 200)
    beliefs.forget("c")
    assert beliefs.paces(M) == ()
