"""Whether the node's service URI leads to this very node, looked at in the background and told to its operator."""

import asyncio
import secrets
from collections.abc import Awaitable, Callable, Sequence
from typing import Final

import structlog

from network.findings import Finding, Verdict, gravest, worst
from network.identity import KEY_BYTES, KeySigner
from network.reachability.judgement import Expectation
from network.reachability.stranger import look
from network.runtime.clock import Clock

#: As Livepeer's own availability check (Livepeer wire, 1.4); neighbours may still be starting.
_FIRST_SECONDS: Final = 2.0
_RETRY_SECONDS: Final = 30.0
_LONGEST_SECONDS: Final = 3600.0

log = structlog.get_logger(__name__)

Look = Callable[[], Awaitable[Sequence[Finding]]]


class SelfCheck:
    """`run` is the job of a supervisor; nothing waits for it."""

    def __init__(self, uri: str, look_once: Look, clock: Clock) -> None:
        self._uri = uri
        self._look = look_once
        self._clock = clock
        self._findings: tuple[Finding, ...] = ()
        self._checked_at: float | None = None
        self._told: object = None

    async def run(self) -> None:
        """Look, and look again: soon and ever later while something is wrong, hourly while not."""
        await asyncio.sleep(_FIRST_SECONDS)
        troubles = 0
        while True:
            verdict = await self.step()
            troubles = troubles + 1 if verdict in (Verdict.WARN, Verdict.FAIL) else 0
            await asyncio.sleep(pause_after(troubles))

    async def step(self) -> Verdict:
        """Look once; tell in one line if that changed what is known."""
        self._findings = tuple(await self._look())
        self._checked_at = self._clock.now()
        verdict = worst(self._findings)
        told = gravest(self._findings)
        # Times in details change with every look; what is wrong does not.
        news = [(one.what, one.verdict) for one in self._findings]
        if news != self._told:
            self._told = news
            self._tell(told)
        return verdict

    def as_json(self) -> dict[str, object]:
        """Return the last look for the operator's `/status`; `checked_at` in unix seconds."""
        return {
            "uri": self._uri,
            "checked_at": self._checked_at,
            "verdict": None if self._checked_at is None else worst(self._findings).value,
            "findings": [finding.as_json() for finding in self._findings],
        }

    def _tell(self, bad: Finding | None) -> None:
        unsure = next((one for one in self._findings if one.what == "connection"), None)
        if bad is None and unsure is not None and unsure.verdict is Verdict.SKIP:
            log.warning(
                "whether strangers reach the node cannot be told from here",
                uri=self._uri,
                what=unsure.detail,
                advice=unsure.advice,
            )
        elif bad is None:
            log.info("the service URI leads to this node", uri=self._uri, sees=_seen(self))
        else:
            works = bad.verdict is Verdict.WARN
            log.warning(
                "strangers reach the node, but" if works else "strangers do not reach the node",
                uri=self._uri,
                what=f"{bad.what}: {bad.detail}",
                advice=bad.advice,
            )

    @property
    def findings(self) -> tuple[Finding, ...]:
        """What the last look showed."""
        return self._findings


def stranger_look(uri: str, expected: Expectation, version: str, clock: Clock) -> Look:
    """Return a look at `uri` in the name of an account that nobody knows.

    How the node feels is left out: it knows that itself, and is loading models when it looks first.
    """
    stranger = KeySigner(secrets.token_bytes(KEY_BYTES))

    async def look_once() -> tuple[Finding, ...]:
        found = await look(uri, expected, asker=stranger, version=version, clock=clock)
        return tuple(finding for finding in found if finding.what != "health")

    return look_once


def pause_after(troubles: int) -> float:
    """Return the seconds until the next look, after so many in a row that showed something wrong."""
    if troubles == 0:
        return _LONGEST_SECONDS
    return float(min(_LONGEST_SECONDS, _RETRY_SECONDS * 2 ** min(troubles - 1, 16)))


def _seen(check: SelfCheck) -> str:
    good = (one for one in check.findings if one.verdict is Verdict.OK)
    return "; ".join(f"{one.what}: {one.detail}" for one in good if one.what != "service URI")
