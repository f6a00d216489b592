"""Verdicts are weighed, and the gravest counts."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from network.findings import Finding, Verdict, fail, gravest, ok, skip, warn, worst

FINDINGS = st.lists(
    st.builds(Finding, st.text(max_size=3), st.sampled_from(Verdict), st.just("seen"))
)


@pytest.mark.parametrize(
    ("findings", "verdict"),
    [
        ([], Verdict.OK),
        ([ok("a", "")], Verdict.OK),
        ([ok("a", ""), skip("b", "")], Verdict.SKIP),
        ([skip("a", ""), warn("b", "", "")], Verdict.WARN),
        ([fail("a", "", ""), warn("b", "", "")], Verdict.FAIL),
    ],
)
def test_the_gravest_verdict_counts(findings: list[Finding], verdict: Verdict) -> None:
    assert worst(findings) is verdict


@given(FINDINGS, FINDINGS)
def test_more_findings_never_make_it_better(some: list[Finding], more: list[Finding]) -> None:
    order = list(Verdict)
    assert order.index(worst(some + more)) >= order.index(worst(some))


@given(FINDINGS)
def test_the_gravest_finding_is_the_first_of_its_kind(findings: list[Finding]) -> None:
    found = gravest(findings)
    if worst(findings) in (Verdict.OK, Verdict.SKIP):
        assert found is None
    else:
        assert found is next(one for one in findings if one.verdict is worst(findings))


def test_programs_are_told_every_field() -> None:
    assert fail("clock", "wrong", "mend it").as_json() == {
        "what": "clock",
        "verdict": "fail",
        "detail": "wrong",
        "advice": "mend it",
    }
