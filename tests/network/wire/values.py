"""Strategies for the messages of `network.wire.codec`."""

from fractions import Fraction

from hypothesis import strategies as st

from network.capabilities import Capabilities, ModelConstraint
from network.units import LARGEST_PRICE_TERM
from network.wire.codec import (
    AuthToken,
    Gpu,
    Hardware,
    OrchestratorInfo,
    OrchestratorRequest,
    Payment,
    PriceInfo,
    SegmentCredentials,
    TicketSenderParams,
)
from network.wire.generated import lp_rpc_pb2 as pb

names = st.text(max_size=20)
blobs = st.binary(max_size=40)
u32 = st.integers(0, 2**32 - 1)
i64 = st.integers(-(2**63), 2**63 - 1)
addresses = st.just(b"") | st.binary(min_size=20, max_size=20)
terms = st.integers(0, LARGEST_PRICE_TERM)
prices = st.builds(Fraction, terms, terms.filter(bool))
bits = st.frozensets(st.integers(0, 1023), max_size=20)

models = st.dictionaries(
    names, st.builds(ModelConstraint, st.booleans(), u32, names, u32), max_size=3
)


@st.composite
def capabilities(draw: st.DrawFn) -> Capabilities:
    held = draw(bits)
    given = draw(st.dictionaries(u32, u32, max_size=4))
    return Capabilities(
        bits=held,
        mandatories=draw(bits),
        # An empty map reads back as one of each.
        capacities=given or dict.fromkeys(sorted(held), 1),
        version=draw(names),
        min_version=draw(names),
        models=draw(st.dictionaries(u32, models, max_size=3)),
    )


tokens = st.builds(AuthToken, st.binary(max_size=32), names, i64)
gpus = st.builds(Gpu, names, names, u32, u32, i64, i64)
ticket_params = st.builds(
    lambda recipient, seed: pb.TicketParams(recipient=recipient, seed=seed).SerializeToString(
        deterministic=True
    ),
    blobs,
    blobs,
)
expiration_params = st.builds(
    lambda number, digest: pb.TicketExpirationParams(
        creation_round=number, creation_round_block_hash=digest
    ).SerializeToString(deterministic=True),
    i64,
    blobs,
)

infos = st.builds(
    OrchestratorInfo,
    transcoder=names,
    address=addresses,
    price=st.none() | prices,
    prices=st.lists(st.builds(PriceInfo, prices, u32, names), max_size=3).map(tuple),
    capabilities=capabilities(),
    auth_token=st.none() | tokens,
    hardware=st.lists(
        st.builds(Hardware, names, names, st.dictionaries(names, gpus, max_size=2)), max_size=2
    ).map(tuple),
    nodes=st.lists(names, max_size=3).map(tuple),
    ticket_params=st.none() | ticket_params,
)
requests = st.builds(
    OrchestratorRequest, addresses, blobs, st.none() | capabilities(), st.booleans()
)
credentials = st.builds(
    SegmentCredentials,
    manifest_id=blobs,
    hash=blobs,
    profiles=blobs,
    signature=blobs,
    capabilities=st.none() | capabilities(),
    auth_token=st.none() | tokens,
    duration=st.integers(-(2**31), 2**31 - 1),
    seq=st.integers(0, 2**63 - 1),
)
payments = st.builds(
    Payment,
    sender=addresses,
    expected_price=st.none() | prices,
    ticket_params=st.none() | ticket_params,
    expiration_params=st.none() | expiration_params,
    tickets=st.lists(st.builds(TicketSenderParams, u32, blobs), max_size=4).map(tuple),
)
