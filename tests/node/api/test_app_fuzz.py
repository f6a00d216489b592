"""Whatever is sent to an app, the answer is JSON with a 4xx or 503, and nothing is done or charged for it."""

import asyncio
from pathlib import Path

import pybase64
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from network.wire.headers import PAYER_ADDRESS, PAYMENT, SEGMENT, encode_header
from tests.node.api.test_fuzz import _BODIES, _HEADERS
from tests.node.apps.callers import Terms, body_of, call, headers_for, path_of, problem
from tests.node.fakes import FakeEngine
from tests.node.nodes import Answer
from tests.node.payments.paid_nodes import PayingBuyer, funded_chain, paid_node

_PATHS = st.one_of(
    st.just(path_of()),
    st.just("/refresh-payment"),
    st.text(st.sampled_from("abc/%-_~"), max_size=20).map(lambda tail: f"/apps/{tail}"),
)
#: Where in a header's bytes, and by how much a byte there is changed.
_FLIPS = st.lists(st.tuples(st.integers(0, 1000), st.integers(1, 255)), min_size=1, max_size=4)


def check(answer: Answer) -> None:
    if answer.status == 402 and "payment_params" in answer.json:
        return
    status, _ = problem(answer)
    assert 400 <= status < 500 or status == 503, (status, answer.text)


def flipped(header: str, flips: list[tuple[int, int]]) -> str:
    data = bytearray(pybase64.b64decode(header))
    for place, change in flips:
        data[place % len(data)] ^= change
    return encode_header(bytes(data))


def test_no_request_to_an_app_makes_a_500(tmp_path: Path) -> None:
    cases: list[tuple[str, bytes, dict[str, str], bool]] = []
    broken: list[tuple[str, list[tuple[int, int]]]] = []

    @settings(max_examples=200, deadline=None, suppress_health_check=list(HealthCheck))
    @given(path=_PATHS, body=_BODIES, headers=_HEADERS, named=st.booleans())
    def collect(path: str, body: bytes, headers: dict[str, str], *, named: bool) -> None:
        cases.append((path, body, headers, named))

    @settings(max_examples=150, deadline=None, suppress_health_check=list(HealthCheck))
    @given(header=st.sampled_from([PAYMENT, SEGMENT]), flips=_FLIPS)
    def collect_broken(header: str, flips: list[tuple[int, int]]) -> None:
        broken.append((header, flips))

    async def run() -> None:
        engine = FakeEngine()
        async with (
            paid_node(tmp_path, funded_chain(), engine) as node,
            PayingBuyer(node) as buyer,
        ):
            payer = {PAYER_ADDRESS: "0x" + buyer.payer.address.hex()}
            for path, body, headers, named in cases:
                sent = {**(payer if named else {}), **headers}
                check(await buyer.post(path, body, sent))
            terms = Terms.of(await call(buyer))
            good = headers_for(buyer, terms)
            for name, flips in broken:
                spoiled = {**good, name: flipped(good[name], flips)}
                if spoiled != good:
                    answer = await buyer.post(path_of(), body_of(), spoiled)
                    # Some bytes say nothing that matters: the session's one call is made then.
                    if answer.status != 200:
                        check(answer)
            assert len(engine.jobs) <= 1

    collect()
    collect_broken()
    asyncio.run(run())
