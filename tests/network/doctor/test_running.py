"""Checks run side by side, and none can hide what another found."""

import asyncio

import pytest
from structlog.testing import capture_logs

from network.doctor.report import as_json, exit_status, show
from network.doctor.running import Check, Section, examine
from network.errors import ConfigError
from network.findings import Finding, Verdict, fail, ok, skip, warn


async def good() -> list[Finding]:
    return [ok("thing", "is well")]


async def hanging() -> list[Finding]:
    await asyncio.sleep(3600)
    return []


async def broken() -> list[Finding]:
    raise KeyError("nothing there")


async def misconfigured() -> list[Finding]:
    raise ConfigError("listen", "is nonsense")


async def test_a_check_that_hangs_or_breaks_leaves_the_others_alone() -> None:
    with capture_logs():
        found = await examine(
            (
                Check("first", hanging, 0.05),
                Check("second", broken),
                Check("third", misconfigured),
                Check("fourth", good),
            )
        )
    assert [section.subject for section in found] == ["first", "second", "third", "fourth"]
    (late,), (fault,), (wrong,), (fine,) = (section.findings for section in found)
    assert (late.verdict, "within 0.05 s" in late.detail) == (Verdict.WARN, True)
    assert fault.verdict is Verdict.FAIL
    assert "the check itself failed: KeyError" in fault.detail
    assert (wrong.verdict, wrong.detail) == (Verdict.FAIL, "listen: is nonsense")
    assert fine == ok("thing", "is well")


async def test_checks_wait_for_one_another_nowhere() -> None:
    meeting = asyncio.Barrier(3)

    async def meets() -> list[Finding]:
        await meeting.wait()
        return await good()

    found = await examine([Check(str(number), meets) for number in range(3)])
    assert [section.findings for section in found] == [(ok("thing", "is well"),)] * 3


@pytest.mark.parametrize(
    ("findings", "status"),
    [
        ((), 0),
        ((ok("a", ""), skip("b", "")), 0),
        ((warn("a", "", ""),), 0),
        ((warn("a", "", ""), fail("b", "", "")), 1),
    ],
)
def test_only_a_failure_ends_a_script(findings: tuple[Finding, ...], status: int) -> None:
    assert exit_status([Section("it", findings)]) == status


def test_people_read_what_is_wrong_and_what_to_do(capsys: pytest.CaptureFixture[str]) -> None:
    show([Section("ports", (fail("listen", "is taken", "stop it"), ok("admin", "is free")))])
    told = capsys.readouterr().out
    assert told.splitlines()[:4] == [
        "ports",
        "  fail  listen: is taken",
        "        -> stop it",
        "  ok    admin: is free",
    ]
    assert told.splitlines()[-1].startswith("1 failing, 0 to be looked at, 1 well")
    assert "\x1b" not in told  # colours are for terminals


def test_programs_get_everything() -> None:
    told = as_json([Section("ports", (fail("listen", "is taken", "stop it"),))]).decode()
    assert '"verdict": "fail"' in told
    assert '"subject": "ports"' in told
    assert '"advice": "stop it"' in told
