"""Runs an examination: every check at the same time, each with a time of its own, none able to end another."""

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass

from network.errors import LimnerError
from network.findings import Finding, fail, warn


@dataclass(frozen=True, slots=True)
class Check:
    """One subject and the work of looking at it."""

    subject: str
    look: Callable[[], Awaitable[Sequence[Finding]]]
    seconds: float = 10.0


@dataclass(frozen=True, slots=True)
class Section:
    """What was found about one subject."""

    subject: str
    findings: tuple[Finding, ...]


async def examine(checks: Iterable[Check]) -> tuple[Section, ...]:
    """Return what each check found, in their order. Takes as long as the slowest may."""
    return tuple(await asyncio.gather(*(_bounded(check) for check in checks)))


async def _bounded(check: Check) -> Section:
    try:
        async with asyncio.timeout(check.seconds):
            found = tuple(await check.look())
    except TimeoutError:
        found = (
            warn(
                check.subject,
                f"could not be looked at within {check.seconds:g} s",
                "see what makes this machine or its network slow, and try again",
            ),
        )
    except LimnerError as error:
        found = (fail(check.subject, str(error), "correct what is named, and try again"),)
    except Exception as error:  # noqa: BLE001  one broken check must not hide what others found
        found = (
            fail(
                check.subject,
                f"the check itself failed: {type(error).__name__}: {error}",
                "report this: it is a fault of the doctor",
            ),
        )
    return Section(check.subject, found)
