"""One envelope for every official client."""

import jsonschema_rs
import orjson
import pytest

from network.errors import FieldFault, Problem, ProblemError
from network.wire import problems
from network.wire.messages import problem_schema

EVERY = [
    (problems.unauthenticated(), 401, "invalid_api_key"),
    (problems.forbidden(), 403, "permission_denied"),
    (problems.not_found("job"), 404, "not_found"),
    (problems.model_not_found("x/y", ["b", "a"]), 404, "model_not_found"),
    (problems.method_not_allowed(["POST"]), 405, "method_not_allowed"),
    (problems.too_large(1024), 413, "body_too_large"),
    (problems.unsupported_media(), 415, "unsupported_media_type"),
    (problems.bad_request("No."), 400, "invalid_request"),
    (problems.unsafe("Unsafe."), 400, "content_policy_violation"),
    (problems.invalid_fields([FieldFault(("body", "a"), "No", "x")]), 422, "validation_error"),
    (problems.rate_limited(0.2), 429, "rate_limited"),
    (problems.no_capacity(3.1), 503, "no_capacity"),
    (problems.price_above_cap("Dear."), 503, "price_above_cap"),
    (problems.orchestrators_failed("All."), 503, "orchestrators_failed"),
    (problems.timed_out("Late."), 503, "deadline_exceeded"),
    (problems.internal(), 500, "internal_error"),
]


@pytest.mark.parametrize(("problem", "status", "code"), EVERY)
def test_every_problem_has_its_status_code_and_the_envelope(
    problem: Problem, status: int, code: str
) -> None:
    body = orjson.loads(problem.body())
    assert problem.status == status
    assert jsonschema_rs.validator_for(problem_schema()).is_valid(body)
    assert body["error"]["code"] == code
    assert body["error"]["message"] == problem.message
    if status == 422:
        assert body["detail"] == [{"loc": ["body", "a"], "msg": "No", "type": "x"}]
    else:
        assert body["detail"] == {"msg": problem.message}


@pytest.mark.parametrize(("problem", "status", "code"), EVERY)
def test_every_429_and_503_says_when_to_come_back(
    problem: Problem, status: int, code: str
) -> None:
    assert code
    if status in (429, 503):
        assert int(problem.headers["Retry-After"]) >= 1
    else:
        assert "Retry-After" not in problem.headers


def test_retry_after_is_rounded_up_to_whole_seconds() -> None:
    assert problems.no_capacity(3.1).headers == {"Retry-After": "4"}
    assert problems.rate_limited(0).headers == {"Retry-After": "1"}


def test_401_and_405_carry_the_headers_that_http_demands() -> None:
    assert problems.unauthenticated().headers == {"WWW-Authenticate": "Bearer"}
    assert problems.method_not_allowed({"POST", "GET"}).headers == {"Allow": "GET, POST"}


def test_an_unknown_model_is_told_the_known_ones_and_echoed_briefly() -> None:
    assert "Available: a, b." in problems.model_not_found("x", ["b", "a"]).message
    assert len(problems.model_not_found("x" * 10_000, []).message) < 300


def test_the_error_that_carries_a_problem_prints_its_message() -> None:
    assert str(ProblemError(problems.bad_request("No."))) == "No."
