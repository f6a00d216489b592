"""Which weights are where: budgets, pins and the order in which models go, over random requests."""

from collections.abc import Sequence

from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from network.units import ModelId
from node.engine.residency import Budget, Move, Residency, Tier

_SIZES = {
    ModelId(name): size for name, size in zip("abcdefg", (1, 2, 3, 4, 5, 9, 14), strict=True)
}
_PINNED = {ModelId("b"), ModelId("c")}
_DEVICE = 10
_models = st.sampled_from(sorted(_SIZES))


def _size(models: Sequence[ModelId] | set[ModelId]) -> int:
    return sum(_SIZES[model_id] for model_id in models)


class _Walk(RuleBasedStateMachine):
    """Requests come, their models are used for a while, and let go."""

    host = 8

    def __init__(self) -> None:
        super().__init__()
        self.residency = Residency(Budget(_DEVICE, self.host), _PINNED)
        self.where = dict.fromkeys(_SIZES, Tier.DISK)
        self.used: list[ModelId] = []  # the most recent use last
        self.in_use: set[ModelId] = set()

    def _at(self, tier: Tier) -> set[ModelId]:
        return {model_id for model_id, at in self.where.items() if at is tier}

    def _follow(self, moves: Sequence[Move]) -> None:
        for move in moves:
            source = self.where[move.model_id]
            assert move.model_id not in self.in_use
            # Downwards only, and each model once.
            if source is Tier.DEVICE:
                assert move.to is Tier.DISK or _SIZES[move.model_id] <= self.host
            else:
                assert (source, move.to) == (Tier.HOST, Tier.DISK)
            self.where[move.model_id] = move.to
            if move.to is Tier.HOST:
                assert _size(self._at(Tier.HOST)) <= self.host
        assert len({move.model_id for move in moves}) == len(moves)

    @rule(model_id=_models)
    def ask(self, model_id: ModelId) -> None:
        before = dict(self.where)
        on_device = self._at(Tier.DEVICE)
        moves = self.residency.place(model_id, _SIZES[model_id], self.in_use)
        if moves is None:
            # Only what is in use can be in the way, and nothing was done about the rest.
            assert on_device & self.in_use - {model_id}
            assert self._tiers() == before
            waits_for = self.residency.in_the_way(_SIZES[model_id])
            assert waits_for <= on_device
            return
        self.where[model_id] = Tier.DEVICE
        self._follow(moves)
        self._check_choice(model_id, on_device, moves)
        if model_id in self.used:
            self.used.remove(model_id)
        self.used.append(model_id)
        self.in_use.add(model_id)

    def _check_choice(
        self, model_id: ModelId, before: set[ModelId], moves: Sequence[Move]
    ) -> None:
        gone = [move.model_id for move in moves if move.model_id in before]
        if model_id in before:
            assert not moves
            return
        need = _SIZES[model_id]
        if gone:
            # Not one more than necessary, unless even the last one did not suffice.
            assert _size(before - set(gone[:-1])) + need > _DEVICE
        pinned = before & _PINNED
        unpinned_gone = [one for one in gone if one not in _PINNED]
        pinned_gone = [one for one in gone if one in _PINNED]
        if pinned_gone:
            assert need + _size(pinned) > _DEVICE
            assert gone == unpinned_gone + pinned_gone
        for chosen, eligible in (
            (unpinned_gone, before - _PINNED - self.in_use),
            (pinned_gone, pinned - self.in_use),
        ):
            order = [one for one in self.used if one in eligible]
            assert chosen == order[: len(chosen)]

    @precondition(lambda self: self.in_use)
    @rule(data=st.data())
    def let_go(self, data: st.DataObject) -> None:
        self.in_use.discard(data.draw(st.sampled_from(sorted(self.in_use))))

    @rule(model_id=_models)
    def run_out_of_memory(self, model_id: ModelId) -> None:
        if model_id not in self.in_use:
            return
        self._follow(self.residency.spare(model_id, self.in_use))
        assert self._at(Tier.DEVICE) == self.in_use

    @rule()
    def stay_within_the_budget(self) -> None:
        assert not self.residency.shrink(self.in_use)

    def _tiers(self) -> dict[ModelId, Tier]:
        return {model_id: self.residency.tier(model_id) for model_id in _SIZES}

    @invariant()
    def budgets_hold_and_everything_is_where_it_was_moved(self) -> None:
        assert self._tiers() == self.where
        on_device = self._at(Tier.DEVICE)
        assert _size(on_device) <= _DEVICE or len(on_device) == 1
        assert _size(self._at(Tier.HOST)) <= self.host
        assert self.in_use <= on_device


class _WalkOnACpu(_Walk):
    """There the device's memory is the host's, and what goes is dropped."""

    host = 0


TestTwoTiers = _Walk.TestCase
TestOneTier = _WalkOnACpu.TestCase


@given(st.lists(_models, min_size=1, max_size=30))
def test_the_same_requests_have_the_same_consequences(asked: list[ModelId]) -> None:
    def moves() -> list[tuple[Move, ...] | None]:
        residency = Residency(Budget(_DEVICE, 8), _PINNED)
        return [residency.place(model_id, _SIZES[model_id], ()) for model_id in asked]

    assert moves() == moves()


def test_models_take_turns_on_a_device_that_has_room_for_one() -> None:
    a, b = ModelId("a"), ModelId("b")
    residency = Residency(Budget(10, 10))
    assert residency.place(a, 8, ()) == ()
    assert residency.place(b, 8, {a}) is None
    assert residency.in_the_way(8) == {a}
    assert residency.place(b, 8, ()) == (Move(a, Tier.HOST),)
    assert residency.place(a, 8, ()) == (Move(b, Tier.HOST),)
    assert residency.tier(a) is Tier.DEVICE


def test_a_warm_set_larger_than_the_budget_takes_turns_as_well() -> None:
    a, b = ModelId("a"), ModelId("b")
    residency = Residency(Budget(10), {a, b})
    assert residency.place(a, 8, ()) == ()
    assert residency.place(b, 8, ()) == (Move(a, Tier.DISK),)


def test_a_pinned_model_stays_while_an_unpinned_one_can_go() -> None:
    warm, cold, new = ModelId("warm"), ModelId("cold"), ModelId("new")
    residency = Residency(Budget(10, 10), {warm})
    residency.place(warm, 5, ())
    residency.place(cold, 5, ())
    assert residency.place(new, 5, ()) == (Move(cold, Tier.HOST),)


def test_a_model_that_turns_out_larger_sends_others_away_and_never_itself() -> None:
    a, b, c = ModelId("a"), ModelId("b"), ModelId("c")
    residency = Residency(Budget(10), {a})
    for model_id in (a, b, c):
        residency.place(model_id, 3, ())
    residency.resize(c, 6)
    assert residency.shrink({c}) == (Move(b, Tier.DISK),)
    residency.resize(c, 20)
    assert residency.shrink({c}) == (Move(a, Tier.DISK),)
    assert residency.shrink(()) == ()
    assert residency.held(Tier.DEVICE) == {c: 20}
