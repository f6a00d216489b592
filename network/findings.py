"""What an examination found, as values: what was looked at, how it stands, and what to do about it. Pure."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import StrEnum


class Verdict(StrEnum):
    """How a thing stands. `SKIP`: it could not be told, or does not apply here."""

    OK = "ok"
    SKIP = "skip"
    WARN = "warn"
    FAIL = "fail"


_BY_WEIGHT = tuple(Verdict)


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that was looked at. `detail` tells what was seen, `advice` what to do, if anything."""

    what: str
    verdict: Verdict
    detail: str
    advice: str = ""

    def as_json(self) -> Mapping[str, str]:
        """Return it for programs; every field is there, also where it is empty."""
        return {
            "what": self.what,
            "verdict": self.verdict.value,
            "detail": self.detail,
            "advice": self.advice,
        }


def ok(what: str, detail: str) -> Finding:
    """Return the finding that `what` is as it should be."""
    return Finding(what, Verdict.OK, detail)


def warn(what: str, detail: str, advice: str) -> Finding:
    """Return the finding that `what` works, or may work, and had better be changed."""
    return Finding(what, Verdict.WARN, detail, advice)


def fail(what: str, detail: str, advice: str) -> Finding:
    """Return the finding that `what` does not work."""
    return Finding(what, Verdict.FAIL, detail, advice)


def skip(what: str, detail: str, advice: str = "") -> Finding:
    """Return the finding that `what` was not looked at, or that the look could not tell."""
    return Finding(what, Verdict.SKIP, detail, advice)


def worst(findings: Iterable[Finding]) -> Verdict:
    """Return the gravest verdict; OK where there is none."""
    verdicts = [finding.verdict for finding in findings]
    return max(verdicts, key=_BY_WEIGHT.index, default=Verdict.OK)


def gravest(findings: Iterable[Finding]) -> Finding | None:
    """Return the first finding of the gravest kind, if anything is worse than skipped."""
    bad = [one for one in findings if one.verdict in (Verdict.WARN, Verdict.FAIL)]
    return max(bad, key=lambda one: _BY_WEIGHT.index(one.verdict), default=None)
