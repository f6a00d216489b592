"""The gateway's side of the wire: encrypted, signed, and careful where it fetches from."""

import datetime as dt
import ssl
from fractions import Fraction
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from gateway.orchestrators.answers import (
    Expected,
    OrchestratorFailed,
    OrchestratorUnreachable,
)
from gateway.orchestrators.client import Order, open_client, own_url
from gateway.orchestrators.offer import Offer, read_offer
from network.capabilities import job_capabilities
from network.identity import checksum
from network.units import Address, ModelId
from network.wire.headers import verify_segment
from tests.gateway.routing import SIGNER
from tests.gateway.stub_orchestrator import StubOrchestrator, running

M = ModelId("m")
ORDER = Order(
    attempt_id="a" * 32,
    model_id=M,
    price=Fraction(1),
    expected=Expected(1, 64, 64, 7),
    body=b'{"model_id":"m","width":64,"height":64,"num_images_per_prompt":1,"seed":7}',
)


def self_signed(folder: Path, protocol: str) -> ssl.SSLContext:
    """A context whose certificate nobody would trust."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "nobody")])
    start = dt.datetime(2020, 1, 1, tzinfo=dt.UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(start)
        .not_valid_after(start + dt.timedelta(days=1))
        .sign(key, hashes.SHA256())
    )
    path = folder / f"{protocol[:2]}.pem"
    secret = key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )
    path.write_bytes(secret + certificate.public_bytes(serialization.Encoding.PEM))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(path)
    context.set_alpn_protocols([protocol])
    return context


def offer_of(stub: StubOrchestrator) -> Offer:
    capabilities = job_capabilities(M, "0.9.1")
    return Offer(stub.uri, stub.http_url, None, {}, capabilities, None, "0.9.1", 0.0, 0.0)


async def test_information_and_jobs_go_over_tls_whoever_signed_the_certificate(
    tmp_path: Path,
) -> None:
    stub = StubOrchestrator()
    tls = self_signed(tmp_path, "http/1.1"), self_signed(tmp_path, "h2")
    async with running(stub, tls=tls), open_client(SIGNER, version="0.1.0") as client:
        info = await client.info(stub.uri, M)
        assert info.price == 1
        assert info.transcoder == stub.http_url
        assert stub.http_url.startswith("https://")
        answer = await client.text_to_image(offer_of(stub), ORDER, 5)
        assert answer.fee == 64 * 64
        assert answer.node_job_id == "job-1"


async def test_a_job_is_signed_by_the_gateway_and_names_it_as_the_payer() -> None:
    stub = StubOrchestrator()
    async with running(stub), open_client(SIGNER, version="0.1.0") as client:
        await client.text_to_image(offer_of(stub), ORDER, 5)
    job = stub.seen[0]
    assert job.attempt_id == ORDER.attempt_id
    assert job.payment.sender == SIGNER.address
    assert job.credentials.manifest_id == b"27_m"
    verify_segment(job.credentials, SIGNER.address)
    assert checksum(Address(job.payment.sender)).startswith("0x")


@pytest.mark.parametrize(
    ("sent", "taken"),
    [
        ("", ""),
        ("it read 75 of 80; no more", "it read 75 of 80; no more"),
        ("caf\N{LATIN SMALL LETTER E WITH ACUTE}\tbar", "cafbar"),
        ("x" * 5000, "x" * 1000),
    ],
)
async def test_warnings_are_taken_as_far_as_a_header_of_ours_may_hold_them(
    sent: str, taken: str
) -> None:
    stub = StubOrchestrator(warnings=sent)
    async with running(stub), open_client(SIGNER, version="0.1.0") as client:
        assert (await client.text_to_image(offer_of(stub), ORDER, 5)).warnings == taken


async def test_without_an_identity_requests_are_unsigned() -> None:
    stub = StubOrchestrator()
    async with running(stub), open_client(None, version="0.1.0") as client:
        await client.info(stub.uri)
        await client.text_to_image(offer_of(stub), ORDER, 5)
    assert stub.requests[0].signature == b""
    assert stub.seen[0].credentials.signature == b""


async def test_one_connection_serves_many_jobs() -> None:
    stub = StubOrchestrator()
    async with running(stub), open_client(SIGNER, version="0.1.0") as client:
        for _ in range(5):
            await client.text_to_image(offer_of(stub), ORDER, 5)
        assert client._poster.idle == 1


async def test_nobody_at_home_is_told_from_a_bad_answer() -> None:
    stub = StubOrchestrator()
    async with running(stub):
        pass
    async with open_client(SIGNER, version="0.1.0") as client:
        with pytest.raises(OrchestratorUnreachable):
            await client.text_to_image(offer_of(stub), ORDER, 5)
        with pytest.raises(OrchestratorUnreachable):
            await client.info(stub.uri)
        assert await client.progress(offer_of(stub), ORDER.attempt_id) is None


async def test_progress_of_a_job_nobody_knows_is_unknown() -> None:
    stub = StubOrchestrator()
    async with running(stub), open_client(SIGNER, version="0.1.0") as client:
        assert await client.progress(offer_of(stub), "b" * 32) is None


@pytest.mark.parametrize(
    "url",
    [
        "https://o.example:8936/stream/x.png",
        "https://o.example:8936/other?a=b",
        "HTTPS://O.EXAMPLE:8936/x",
        "/stream/x.png",
    ],
)
def test_links_to_the_orchestrator_itself_are_followed(url: str) -> None:
    assert own_url(url, "https://o.example:8936").host == "o.example"


@pytest.mark.parametrize(
    "url",
    [
        "",
        "x.png",
        "//evil.example/x.png",
        "http://o.example:8936/x.png",
        "https://o.example/x.png",
        "https://o.example:8937/x.png",
        "https://user@o.example:8936/x.png",
        "https://o.example:8936@evil.example/x.png",
        "https://o.example:8936.evil.example/x.png",
        "https://169.254.169.254/latest",
        "file:///etc/passwd",
        "https://[::1",
        "https://o.example:99999/",
    ],
)
def test_links_anywhere_else_are_not(url: str) -> None:
    with pytest.raises(OrchestratorFailed):
        own_url(url, "https://o.example:8936")


@pytest.mark.parametrize(
    ("uri", "transcoder", "is_usable"),
    [
        ("https://o.example:8936", "https://o.example:8936", True),
        ("https://o.example:8936", "https://gpu.example:443/prefix", True),
        ("https://o.example:8936", "https://127.0.0.1:5432", False),
        ("https://o.example:8936", "http://169.254.169.254", False),
        ("https://o.example:8936", "http://10.0.0.7:80", False),
        ("https://o.example:8936", "http://localhost:80", False),
        ("https://o.example:8936", "http://[::1]:80", False),
        ("https://127.0.0.1:8936", "https://127.0.0.1:9000", True),
        ("https://10.0.0.7:8936", "https://10.0.0.8:8936", True),
    ],
)
async def test_jobs_are_not_sent_into_our_own_network_at_a_strangers_word(
    uri: str, transcoder: str, *, is_usable: bool
) -> None:
    stub = StubOrchestrator(transcoder=transcoder)
    async with running(stub), open_client(None, version="0.1.0") as client:
        info = await client.info(stub.uri)
    offer = read_offer(uri, info, replies={}, floors={}, refreshed_at=0.0, round_trip=0.0)
    assert bool(offer.models) is is_usable
    assert bool(offer.problem) is not is_usable
