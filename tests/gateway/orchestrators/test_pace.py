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
        for usual in range(6):
            ordered = sorted([usual, *self.model.values()])
            for percent in (0, 15, 50, 99):
                expected = ordered[len(ordered) * percent // 100]
                assert self.figures.at(percent, usual) == expected


TestMeasuring = Measuring.TestCase


def test_beliefs_follow_what_is_measured_and_who_is_there() -> None:
    beliefs = Beliefs(usual_pace=1000, usual_load=2000)
    assert set(beliefs.paces(M)) == {1000}
    assert beliefs.load(M) == 2000
    for uri, pace in [("a", 10), ("b", 20), ("c", 90)]:
        beliefs.learn_pace(uri, M, 19, pace)
        beliefs.learn_load(uri, M, pace)
    assert set(beliefs.paces(M)) == {10}
    assert set(beliefs.paces(ModelId("other"))) == {1000}
    beliefs.forget("a")
    beliefs.forget("b")
    assert set(beliefs.paces(M)) == {90}
    assert beliefs.load(M) == 90
    beliefs.learn_pace("c", M, 21, 200)
    assert (beliefs.paces(M)[19], beliefs.paces(M)[21]) == (90, 200)
    beliefs.forget("c")
    assert set(beliefs.paces(M)) == {1000}


def test_one_slow_orchestrator_does_not_make_all_others_look_slow() -> None:
    beliefs = Beliefs(usual_pace=100, usual_load=100)
    beliefs.learn_pace("a", M, 19, 5000)
    assert set(beliefs.paces(M)) == {100}
    for number in range(20):
        beliefs.learn_pace(f"o{number}", M, 19, 5000)
    assert set(beliefs.paces(M)) == {5000}
