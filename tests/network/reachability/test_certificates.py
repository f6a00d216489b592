"""What a TLS handshake shows, and for whom the certificate is good."""

from datetime import timedelta
from pathlib import Path

import pytest

from network.findings import Verdict
from network.reachability.certificates import (
    Handshake,
    facts_of,
    judge_certificate,
    judge_handshake,
    shake_hands,
)
from network.runtime.clock import SystemClock
from tests.network.reachability.certificates import HOUR, der_of, tls_server, write_certificate

YEAR = timedelta(days=365)
NOW = SystemClock().now()


def shown(folder: Path, *, begins: timedelta, ends: timedelta, objection: str = "") -> Handshake:
    path = folder / "made.pem"
    write_certificate(path, name="node.example", begins=begins, ends=ends)
    return Handshake("TLSv1.3", "h2", der_of(path), objection, is_self_signed=bool(objection))


@pytest.mark.parametrize(
    ("begins", "ends", "objection", "is_public", "verdict", "words"),
    [
        (-HOUR, YEAR, "", True, Verdict.OK, "verified by the usual authorities"),
        (-HOUR, YEAR, "self-signed certificate", False, Verdict.OK, "self-signed"),
        (-HOUR, YEAR, "self-signed certificate", True, Verdict.WARN, "the SDK verifies"),
        (-2 * HOUR, -HOUR, "", True, Verdict.FAIL, "expired on"),
        (HOUR, YEAR, "", True, Verdict.FAIL, "is valid from"),
        (-HOUR, 24 * HOUR, "", True, Verdict.WARN, "expires on"),
    ],
)
def test_a_certificate_is_judged(
    *,
    begins: timedelta,
    ends: timedelta,
    objection: str,
    is_public: bool,
    verdict: Verdict,
    words: str,
    tmp_path: Path,
) -> None:
    handshake = shown(tmp_path, begins=begins, ends=ends, objection=objection)
    found = judge_certificate(handshake, "node.example", NOW, is_public=is_public)
    assert (found.verdict, words in found.detail) == (verdict, True), found


def test_one_made_for_another_name_is_told(tmp_path: Path) -> None:
    handshake = shown(tmp_path, begins=-HOUR, ends=YEAR, objection="Hostname mismatch")
    found = judge_certificate(handshake, "other.example", NOW, is_public=False)
    assert found.verdict is Verdict.WARN
    assert "node.example rather than other.example" in found.detail


def test_no_certificate_that_can_be_read_is_a_failure() -> None:
    handshake = Handshake("TLSv1.3", "h2", b"junk", "", is_self_signed=False)
    found = judge_certificate(handshake, "a", 0.0, is_public=False)
    assert found.verdict is Verdict.FAIL


async def test_a_handshake_tells_what_clients_that_verify_would_object_to(tmp_path: Path) -> None:
    path = tmp_path / "made.pem"
    write_certificate(path, name="localhost", begins=-HOUR, ends=YEAR)
    async with tls_server(path, ["http/1.1", "h2"]) as port:
        found = await shake_hands("localhost", port)
    assert (found.protocol, found.is_self_signed) == ("h2", True)
    assert found.version.startswith("TLSv1.")
    assert "self" in found.objection
    assert facts_of(found.certificate).names == ("localhost",)
    assert judge_handshake(found).verdict is Verdict.OK


async def test_without_h2_grpc_clients_hang_up(tmp_path: Path) -> None:
    path = tmp_path / "made.pem"
    write_certificate(path, name="localhost", begins=-HOUR, ends=YEAR)
    async with tls_server(path, []) as port:
        found = await shake_hands("127.0.0.1", port)
    judged = judge_handshake(found)
    assert judged.verdict is Verdict.FAIL
    assert "no ALPN h2" in judged.detail
