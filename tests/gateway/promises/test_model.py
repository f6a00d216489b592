"""Which answers bind, and what tells a repeat from another request."""

import orjson
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from gateway.accounting.events import Fulfilment
from gateway.promises.model import (
    LARGEST_BODY,
    Kept,
    Promise,
    delivered,
    digest_of,
    headers_of,
    is_idempotency_key,
    is_lasting,
    refused,
)
from network.errors import Problem

PROMISE = Promise("p", "k", "n", "r", "e", "d", None, None, "https://x", None, 1.0)
names = st.text(alphabet="abcdefghijklmnopqrstuvwxyz-", min_size=1)


@given(st.tuples(names, st.binary()), st.tuples(names, st.binary()))
def test_a_digest_is_of_one_endpoint_and_one_body(
    one: tuple[str, bytes], other: tuple[str, bytes]
) -> None:
    assert (digest_of(*one) == digest_of(*other)) == (one == other)


@given(st.text(max_size=300))
def test_keys_are_visible_ascii(text: str) -> None:
    is_visible = all("!" <= letter <= "~" for letter in text)
    assert is_idempotency_key(text) == (1 <= len(text) <= 255 and is_visible)


@given(st.integers(400, 599), names)
def test_faults_that_may_pass_bind_nobody(status: int, code: str) -> None:
    told = refused("r", Problem(status, "no", "t", code, headers={"Retry-After": "1"}), 5.0)
    assert headers_of(told) == {"Retry-After": "1"}
    is_bound = status in {400, 404, 413, 415, 422} or code == "cancelled"
    assert is_lasting(told) == Kept(PROMISE, told).binds == is_bound
    assert Kept(PROMISE, None).binds


@given(st.dictionaries(names, st.text(max_size=20)), st.integers(0, LARGEST_BODY))
def test_an_answer_is_kept_whole_or_not_at_all(head: dict[str, str], size: int) -> None:
    answer = {"images": [{"url": "x" * size}]}
    kept, body = delivered("r", answer, head, 5.0)
    assert orjson.loads(body) == answer
    assert kept.body in {"", body.decode()}
    assert bool(kept.body) == (len(body) <= LARGEST_BODY)
    assert headers_of(kept) == head
    assert kept == replace(kept, state="done", status=200, finished_at=5.0)
    assert isinstance(kept, Fulfilment)
