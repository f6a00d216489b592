"""A stranger's name that turns out to be one of our own machines is not spoken to, on any of the three ways."""

from dataclasses import replace

import pytest

from gateway.orchestrators.answers import OrchestratorFailed, OrchestratorUnreachable
from gateway.orchestrators.client import open_client
from tests.gateway.orchestrators.test_client import ORDER, M, offer_of
from tests.gateway.routing import SIGNER
from tests.gateway.stub_orchestrator import StubOrchestrator, running

JOB = "b" * 32


def named(url: str) -> str:
    """By a name, as a stranger would write it."""
    return url.replace("127.0.0.1", "localhost")


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost"])
async def test_a_host_that_must_not_be_private_gets_nothing_of_us(host: str) -> None:
    stub = StubOrchestrator()

    def may_be_private(asked: str) -> bool:
        assert asked == host
        return False

    async with (
        running(stub),
        open_client(SIGNER, version="0.1.0", may_be_private=may_be_private) as client,
    ):
        uri, url = (one.replace("127.0.0.1", host) for one in (stub.uri, stub.http_url))
        offer = replace(offer_of(stub), uri=uri, transcoder=url)
        for _ in range(2):  # neither the first time nor on a connection that was kept
            with pytest.raises(OrchestratorUnreachable, match="a private address"):
                await client.info(uri, M)
            with pytest.raises(OrchestratorUnreachable, match="a private address"):
                await client.text_to_image(offer, ORDER, 5)
    assert not stub.requests
    assert not stub.seen


async def test_neither_does_a_call_that_follows_a_job() -> None:
    stub = StubOrchestrator()
    async with (
        running(stub),
        open_client(SIGNER, version="0.1.0", may_be_private=lambda _: False) as client,
    ):
        stub.progress[JOB] = 3
        offer = replace(offer_of(stub), transcoder=named(stub.http_url))
        assert await client.progress(offer, JOB) is None
        with pytest.raises(OrchestratorFailed):
            await client.receipt(offer, JOB)


async def test_a_host_that_the_operator_knows_may_be_anywhere() -> None:
    stub = StubOrchestrator()
    async with (
        running(stub),
        open_client(
            SIGNER, version="0.1.0", may_be_private=lambda host: host == "localhost"
        ) as client,
    ):
        stub.progress[JOB] = 3
        offer = replace(offer_of(stub), transcoder=named(stub.http_url))
        assert (await client.info(named(stub.uri), M)).price == 1
        assert (await client.text_to_image(offer, ORDER, 5)).images
        told = await client.progress(offer, JOB)
        assert told is not None
        assert told.done_steps == 3
