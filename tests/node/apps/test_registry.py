from fractions import Fraction
from itertools import count

import hypothesis.strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule
from yarl import URL

from node.apps.heartbeat import Asked, Heartbeat, Told
from node.apps.registry import LIFETIME, Operator, Registered, Registry, Rejection

SECRET = "the operator's registration secret"
MOST = 3
OWN_APP, OWN_ROUTE = "text-to-image/ours", "ours"


def told(app: str = "acme/upscaler", port: int = 9000) -> Told:
    return Told(
        URL(f"http://127.0.0.1:{port}"), app, "single-shot", 1, Asked(Fraction(1), "fixed")
    )


def registry(most: int = MOST) -> Registry:
    numbers = count()
    return Registry(
        SECRET,
        most=most,
        is_taken=lambda app, route: app == OWN_APP or route == OWN_ROUTE,
        draw=lambda size: f"{next(numbers):0{2 * size}x}",
    )


def registered(result: Registered | Rejection) -> Registered:
    assert isinstance(result, Registered)
    return result


def test_a_runner_gets_a_place_and_a_secret_of_its_own_and_goes_on_with_that() -> None:
    book = registry()
    first = registered(book.beat(SECRET, Heartbeat("", told()), 0.0))
    assert first.secret is not None
    assert first.runner.runner_id.startswith("acme-upscaler-")
    again = registered(
        book.beat(first.secret, Heartbeat(first.runner.runner_id, told(port=9001)), 5.0)
    )
    assert again.secret is None
    assert again.runner.told.url.port == 9001
    assert book.runners(5.0) == (again.runner,)


def test_two_runners_of_one_app_have_two_places_and_neither_speaks_for_the_other() -> None:
    book = registry()
    one, two = (registered(book.beat(SECRET, Heartbeat("", told()), 0.0)) for _ in range(2))
    assert one.runner.runner_id != two.runner.runner_id
    beat = Heartbeat(one.runner.runner_id, told())
    assert two.secret is not None
    assert book.beat(two.secret, beat, 1.0) is Rejection.UNAUTHORIZED
    assert book.unregister(two.secret, one.runner.runner_id, 1.0) is Rejection.UNAUTHORIZED
    assert len(book.runners(1.0)) == 2


def test_who_fell_silent_is_refused_and_comes_back_under_its_id() -> None:
    book = registry()
    first = registered(book.beat(SECRET, Heartbeat("", told()), 0.0))
    beat = Heartbeat(first.runner.runner_id, told())
    assert first.secret is not None
    late = LIFETIME + 0.1
    assert book.beat(first.secret, beat, late) is Rejection.UNAUTHORIZED
    back = registered(book.beat(SECRET, beat, late))
    assert back.runner.runner_id == first.runner.runner_id
    assert back.secret not in {None, first.secret}


def test_a_new_process_takes_the_place_over_and_the_old_ones_secret_is_void() -> None:
    book = registry()
    old = registered(book.beat(SECRET, Heartbeat("upscaler", told()), 0.0))
    new = registered(book.beat(SECRET, Heartbeat("upscaler", told(port=9001)), 1.0))
    assert old.secret is not None
    assert new.secret is not None
    assert book.caller(old.secret, 1.0) is None
    assert book.caller(new.secret, 1.0) == "upscaler"
    assert book.caller(SECRET, 1.0) is Operator.OPERATOR


def test_nobody_takes_the_name_or_the_place_of_our_own_apps() -> None:
    book = registry()
    assert book.beat(SECRET, Heartbeat("", told(OWN_APP)), 0.0) is Rejection.TAKEN
    assert book.beat(SECRET, Heartbeat(OWN_ROUTE, told()), 0.0) is Rejection.TAKEN
    first = registered(book.beat(SECRET, Heartbeat("", told()), 0.0))
    assert first.secret is not None
    renamed = Heartbeat(first.runner.runner_id, told(OWN_APP))
    assert book.beat(first.secret, renamed, 1.0) is Rejection.TAKEN


class Registering(RuleBasedStateMachine):
    """Runners come, beat, fall silent and leave; the model holds who may be called."""

    def __init__(self) -> None:
        super().__init__()
        self.book = registry()
        self.now = 0.0
        #: by id: when it beat last, and its secret
        self.model: dict[str, tuple[float, str]] = {}
        self.void: set[str] = set()

    def alive(self) -> dict[str, tuple[float, str]]:
        return {one: entry for one, entry in self.model.items() if self.now - entry[0] <= LIFETIME}

    @rule(seconds=st.floats(0.0, 15.0))
    def time_passes(self, seconds: float) -> None:
        self.now += seconds
        alive = self.alive()
        self.void |= {secret for one, (_, secret) in self.model.items() if one not in alive}
        self.model = alive

    @rule(name=st.sampled_from(["", "a", "b", "c", "d", OWN_ROUTE]))
    def register(self, name: str) -> None:
        result = self.book.beat(SECRET, Heartbeat(name, told()), self.now)
        if name == OWN_ROUTE:
            assert result is Rejection.TAKEN
        elif name not in self.model and len(self.model) >= MOST:
            assert result is Rejection.FULL
        else:
            taken = registered(result)
            assert taken.secret is not None
            runner_id = taken.runner.runner_id
            assert runner_id == name or (not name and runner_id not in self.model)
            if runner_id in self.model:
                self.void.add(self.model[runner_id][1])
            self.model[runner_id] = (self.now, taken.secret)

    @rule(data=st.data())
    def beat(self, data: st.DataObject) -> None:
        if not self.model:
            return
        runner_id = data.draw(st.sampled_from(sorted(self.model)))
        sender = data.draw(st.sampled_from(sorted(self.model)))
        secret = self.model[sender][1]
        result = self.book.beat(secret, Heartbeat(runner_id, told()), self.now)
        if sender == runner_id:
            assert registered(result).secret is None
            self.model[runner_id] = (self.now, secret)
        else:
            assert result is Rejection.UNAUTHORIZED

    @rule(data=st.data(), by_operator=st.booleans())
    def unregister(self, data: st.DataObject, by_operator: bool) -> None:  # noqa: FBT001
        runner_id = data.draw(st.sampled_from([*sorted(self.model), "nobody"]))
        if runner_id == "nobody":
            assert self.book.unregister(SECRET, runner_id, self.now) is False
            return
        _, secret = self.model.pop(runner_id)
        self.void.add(secret)
        used = SECRET if by_operator else secret
        assert self.book.unregister(used, runner_id, self.now) is True

    @invariant()
    def who_may_be_called_is_who_beat_lately(self) -> None:
        runners = self.book.runners(self.now)
        assert {runner.runner_id for runner in runners} == set(self.model)
        assert len(runners) <= MOST
        for runner_id, (seen_at, secret) in self.model.items():
            runner = self.book.find(runner_id, self.now)
            assert runner is not None
            assert runner.seen_at == seen_at
            assert self.book.caller(secret, self.now) == runner_id

    @invariant()
    def void_secrets_open_nothing(self) -> None:
        for secret in self.void:
            assert self.book.caller(secret, self.now) is None


TestRegistering = Registering.TestCase
