from pathlib import Path

import pytest
from grpclib.const import Status
from grpclib.exceptions import GRPCError

from network.capabilities import DEFAULT_CAPABILITIES, TEXT_TO_IMAGE, job_capabilities
from network.identity import KeySigner, checksum, session_request_signature, verify_hashed
from network.units import ModelId
from network.wire.codec import OrchestratorRequest
from node.engine.work import ModelState
from tests.node.fakes import MODEL, FakeEngine
from tests.node.nodes import GATEWAY_KEY, NODE_KEY, PRICE, Buyer, running_node

REFUSED = "Invalid orchestrator request: orchestrator req sig check failed"


async def test_a_gateway_that_asks_for_everything_hears_everything(tmp_path: Path) -> None:
    async with running_node(tmp_path, price="3") as node, Buyer(node) as buyer:
        info = await buyer.terms()
        assert info.transcoder == node.url
        assert info.address == NODE_KEY.address
        assert info.price == 3
        assert [(p.price, p.capability, p.constraint) for p in info.prices] == [
            (PRICE, TEXT_TO_IMAGE, MODEL)
        ]
        assert info.capabilities.bits == DEFAULT_CAPABILITIES | {27}
        assert set(info.capabilities.capacities) == set(info.capabilities.bits)
        model = info.capabilities.models[27][MODEL]
        assert (model.warm, model.capacity, model.capacity_in_use) == (True, 2, 0)
        assert [entry.model_id for entry in info.hardware] == [MODEL]
        assert info.auth_token is not None
        assert len(info.auth_token.token) == 32
        assert len(info.auth_token.session_id) == 8


async def test_a_gateway_that_asks_for_a_model_hears_its_price(tmp_path: Path) -> None:
    async with running_node(tmp_path, price="3") as node, Buyer(node) as buyer:
        info = await buyer.terms(job_capabilities(MODEL, "0.9.1"))
        assert info.price == PRICE
        assert info.prices == ()
        assert info.hardware == ()
        other = await buyer.terms(job_capabilities(ModelId("somebody/else"), "0.9.1"))
        assert other.price == 3


async def test_free_capacity_and_warmth_are_those_of_the_moment(tmp_path: Path) -> None:
    engine = FakeEngine()
    async with running_node(tmp_path, engine) as node, Buyer(node) as buyer:
        engine.change(ModelState(MODEL, "loading", 0.5))
        model = (await buyer.terms()).capabilities.models[27][MODEL]
        assert (model.warm, model.capacity) == (False, 0)
        engine.change(ModelState(MODEL, "cold"))
        model = (await buyer.terms()).capabilities.models[27][MODEL]
        assert (model.warm, model.capacity) == (False, 2)
        engine.change(healthy=False)
        model = (await buyer.terms()).capabilities.models[27][MODEL]
        assert (model.warm, model.capacity) == (False, 0)


async def test_an_account_off_the_list_is_refused_in_livepeers_words(tmp_path: Path) -> None:
    async with running_node(tmp_path, allowed_gateways=[checksum(GATEWAY_KEY.address)]) as node:
        async with Buyer(node, GATEWAY_KEY) as buyer:
            assert (await buyer.terms()).transcoder == node.url
        for signer in (None, KeySigner(b"\x55" * 32)):
            async with Buyer(node, signer) as stranger:
                with pytest.raises(GRPCError) as caught:
                    await stranger.terms()
                assert (caught.value.status, caught.value.message) == (Status.UNKNOWN, REFUSED)


async def test_a_wrong_signature_is_refused_even_where_anybody_is_served(tmp_path: Path) -> None:
    async with running_node(tmp_path) as node, Buyer(node, GATEWAY_KEY) as buyer:
        with pytest.raises(GRPCError) as caught:
            await buyer.terms(address=NODE_KEY.address)
        assert caught.value.message == REFUSED


async def test_tokens_outlive_a_restart(tmp_path: Path) -> None:
    async with running_node(tmp_path) as node, Buyer(node) as buyer:
        token = (await buyer.terms()).auth_token
    async with running_node(tmp_path) as node, Buyer(node) as buyer:
        assert (await buyer.ask(token=token)).status == 200


async def test_ping_proves_the_account_and_signs_nothing_longer_than_a_hash(
    tmp_path: Path,
) -> None:
    async with running_node(tmp_path) as node, Buyer(node) as buyer:
        verify_hashed(NODE_KEY.address, b"v" * 32, await buyer.ping(b"v" * 32))
        # The signature of this text would let anybody pass for the node elsewhere.
        with pytest.raises(GRPCError) as caught:
            await buyer.ping(checksum(NODE_KEY.address).encode())
        assert caught.value.status is Status.INVALID_ARGUMENT


def test_a_session_request_is_longer_than_a_ping() -> None:
    request = OrchestratorRequest(NODE_KEY.address, session_request_signature(NODE_KEY))
    assert len(checksum(NODE_KEY.address)) > 32
    assert request.signature
