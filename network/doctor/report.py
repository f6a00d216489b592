"""Tells an examination's outcome, to people and to programs."""

from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Final

import click
import orjson

from network.doctor.running import Section
from network.findings import Finding, Verdict, worst

_COLOURS: Final = {
    Verdict.OK: "green",
    Verdict.SKIP: "bright_black",
    Verdict.WARN: "yellow",
    Verdict.FAIL: "red",
}


def verdict_of(sections: Sequence[Section]) -> Verdict:
    """Return the gravest verdict of all."""
    return worst(finding for section in sections for finding in section.findings)


def exit_status(sections: Sequence[Section]) -> int:
    """Return 1 if something fails, 0 otherwise: what only might be better ends no script."""
    return int(verdict_of(sections) is Verdict.FAIL)


def as_json(sections: Sequence[Section]) -> bytes:
    """Return the whole outcome for programs."""
    value = {
        "verdict": verdict_of(sections).value,
        "sections": [
            {
                "subject": section.subject,
                "findings": [finding.as_json() for finding in section.findings],
            }
            for section in sections
        ],
    }
    return orjson.dumps(value, option=orjson.OPT_INDENT_2)


def show(sections: Sequence[Section]) -> None:
    """Print the outcome; colours only on a terminal."""
    for section in sections:
        click.echo(section.subject)
        for finding in section.findings:
            for line in _lines(finding):
                click.echo(line)
    click.echo("")
    click.echo(_summary(sections))


def _lines(finding: Finding) -> Iterator[str]:
    verdict = click.style(f"{finding.verdict.value:<5}", fg=_COLOURS[finding.verdict])
    yield f"  {verdict} {finding.what}: {finding.detail}"
    if finding.advice:
        yield f"        -> {finding.advice}"


def _summary(sections: Sequence[Section]) -> str:
    counted = Counter(finding.verdict for section in sections for finding in section.findings)
    failing, doubtful = counted[Verdict.FAIL], counted[Verdict.WARN]
    if not failing and not doubtful:
        return f"Nothing is wrong: {counted[Verdict.OK]} things looked at."
    return (
        f"{failing} failing, {doubtful} to be looked at, {counted[Verdict.OK]} well, "
        f"{counted[Verdict.SKIP]} not looked at."
    )
