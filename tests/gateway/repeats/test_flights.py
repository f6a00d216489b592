"""Which runs are begun, joined, stopped and paid for, whatever comes and goes in whatever order."""

from fractions import Fraction

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from gateway.repeats.flights import Flight, Flights, Member
from network.units import Wei

FEE, SHARE = Wei(101), Fraction(1, 2)
digests = st.sampled_from([b"a", b"b"])
keys = st.sampled_from(["k1", "k2"])


class Run:
    """What a test knows of a run."""

    def __init__(self) -> None:
        self.was_stopped = False
        self.has_failed = False
        #: What each who got the images was charged, and by which key.
        self.charged: list[tuple[str, Wei]] = []
        self.leader_left = False


class FlightsMachine(RuleBasedStateMachine):
    """Requests come and go away; runs land and fail."""

    def __init__(self) -> None:
        super().__init__()
        self.flights: Flights[Run] = Flights()
        #: That are neither stopped nor over.
        self.open: list[Flight[Run]] = []
        self.all: list[Flight[Run]] = []
        self.count = 0

    @rule(digest=digests, key=keys, is_bound=st.booleans())
    def come(self, digest: bytes, key: str, *, is_bound: bool) -> None:
        self.count += 1
        member = Member(f"r{self.count}", key)
        flight = self.flights.find(digest)
        if flight is None:
            flight = self.flights.begin(digest, member, Run(), is_bound=is_bound)
            self.open.append(flight)
            self.all.append(flight)
        else:
            assert not flight.run.was_stopped
            assert not flight.run.has_failed
            self.flights.join(flight, member)
        assert self.flights.of(member.request_id) is flight

    @precondition(lambda self: any(one.waiting for one in self.all))
    @rule(data=st.data())
    def leave(self, data: st.DataObject) -> None:
        """Before the images are there: goes away. After: gets them."""
        flight = data.draw(st.sampled_from([one for one in self.all if one.waiting]))
        member = data.draw(st.sampled_from(list(flight.waiting.values())))
        run = flight.run
        must_stop = self.flights.leave(flight, member)
        if flight.is_landed:
            run.charged.append((member.key_id, flight.charge(member, FEE, SHARE)))
            assert not must_stop
            return
        if run.was_stopped or run.has_failed:
            return  # it waited for nothing, and tries again
        is_leader = member == flight.leader
        run.leader_left |= is_leader
        assert must_stop == (not flight.waiting or (is_leader and flight.is_bound))
        if must_stop:
            run.was_stopped = True
            self.open.remove(flight)

    @precondition(lambda self: self.open)
    @rule(data=st.data(), has_failed=st.booleans())
    def end(self, data: st.DataObject, *, has_failed: bool) -> None:
        flight = data.draw(st.sampled_from(self.open))
        self.open.remove(flight)
        if has_failed:
            flight.run.has_failed = True
            self.flights.close(flight)
        else:
            flight.land()

    @precondition(lambda self: any(one.is_landed for one in self.all))
    @rule(data=st.data())
    def conclude(self, data: st.DataObject) -> None:
        """It is remembered: who comes from now on need not wait for it."""
        self.flights.close(data.draw(st.sampled_from([f for f in self.all if f.is_landed])))

    @invariant()
    def adds_up(self) -> None:
        self.flights.validate()
        assert self.flights.waiting == sum(len(one.waiting) for one in self.all)

    @invariant()
    def nobody_pays_for_more_than_it_got(self) -> None:
        for flight in self.all:
            if not flight.is_landed:
                assert not flight.run.charged
            if not flight.is_landed or flight.waiting:
                continue
            paid: dict[str, int] = {"k1": 0, "k2": 0}
            got = {"k1": 0, "k2": 0}
            for key, charge in flight.run.charged:
                paid[key] += charge
                got[key] += 1
            leader = flight.leader.key_id
            if flight.run.leader_left:
                paid[leader] += FEE  # it bought the run all the same
            for key, amount in paid.items():
                most = FEE if key == leader else 0
                repeats = got[key] - (key == leader and got[key] > 0)
                assert amount <= most + 50 * repeats


TestFlights = FlightsMachine.TestCase


def test_who_comes_after_the_landing_has_what_its_key_paid_for_too() -> None:
    flights: Flights[None] = Flights()
    leader, other, late, later = (
        Member(name, key) for name, key in [("r1", "k1"), ("r2", "k2"), ("r3", "k1"), ("r4", "k1")]
    )
    flight = flights.begin(b"d", leader, None)
    flights.join(flight, other)
    flights.leave(flight, leader)
    flight.land()
    for one in (late, later):
        flights.join(flight, one)
    assert [flight.charge(one, FEE, SHARE) for one in (other, late, later)] == [50, 0, 50]


def test_the_first_that_waits_with_the_same_key_has_what_its_key_paid_for() -> None:
    flights: Flights[None] = Flights()
    leader = Member("r1", "k1")
    flight = flights.begin(b"d", leader, None)
    others = [Member("r2", "k2"), Member("r3", "k1"), Member("r4", "k1")]
    for one in others:
        flights.join(flight, one)
    assert not flights.leave(flight, leader)
    flight.land()
    assert [flight.charge(one, FEE, SHARE) for one in others] == [50, 0, 50]
