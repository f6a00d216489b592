"""Frames between the engine and its worker."""

import socket
import struct

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from network.units import JobId, ModelId
from network.wire.safety import Safety
from node.engine.channel import Channel, Inbox
from node.engine.options import SafetyOptions
from node.engine.protocol import (
    HEADER_BYTES,
    MAX_FRAME,
    Activity,
    Beat,
    Cancel,
    ChannelError,
    CheckerChanged,
    Dying,
    Failed,
    FromWorker,
    Hello,
    ImageDone,
    Model,
    ModelChanged,
    Previewed,
    Setup,
    Started,
    Stepped,
    Stop,
    Submit,
    ToWorker,
    Watch,
    body_length,
    decode_for_worker,
    decode_from_worker,
    encode_frame,
)
from node.engine.work import ImageJob, ModelFacts, ModelState

_jobs = st.builds(
    ImageJob,
    job_id=st.text(max_size=8).map(JobId),
    model_id=st.text(max_size=8).map(ModelId),
    prompts=st.lists(st.text(), min_size=1, max_size=3).map(tuple),
    width=st.integers(1, 4096),
    height=st.integers(1, 4096),
    steps=st.integers(1, 100),
    guidance=st.floats(0, 30),
    seeds=st.lists(st.integers(0, 2**32 - 1), min_size=1, max_size=4).map(tuple),
    negative_prompts=st.lists(st.text(), max_size=3).map(tuple),
    loras=st.lists(st.tuples(st.text(), st.floats(0, 2)), max_size=2).map(tuple),
)
_states = st.builds(
    ModelState,
    model_id=st.text(max_size=8).map(ModelId),
    status=st.sampled_from(["cold", "loading", "ready", "failed"]),
    facts=st.none() | st.builds(ModelFacts),
    pace=st.none() | st.floats(0, 1),
)
_small = st.integers(0, 2**31)
_to_worker: st.SearchStrategy[ToWorker] = st.one_of(
    st.builds(Submit, ticket=_small, job=_jobs, wanted=st.tuples(_small)),
    st.builds(Watch, ticket=_small, wanted=st.booleans()),
    st.builds(Cancel, ticket=_small),
    st.builds(Stop),
    st.builds(
        Setup,
        models=st.tuples(st.builds(Model)),
        device=st.text(),
        max_active_samples=_small,
        memory_budget=st.none() | _small,
        host_memory_budget=st.none() | _small,
        longest_step=st.floats(),
        longest_load=st.floats(),
        safety=st.builds(
            SafetyOptions,
            checker=st.text(),
            threshold=st.floats(0, 1),
            unsafe_labels=st.lists(st.text()).map(tuple),
            always=st.booleans(),
        ),
        forget_after=st.floats(),
    ),
)
_from_worker: st.SearchStrategy[FromWorker] = st.one_of(
    st.builds(Hello, device=st.text(), threads=_small),
    st.builds(
        Beat,
        activities=st.lists(st.builds(Activity)).map(tuple),
        resident_bytes=_small,
        batches=st.dictionaries(_small, _small, max_size=3),
        step_seconds=st.floats(0, 10),
    ),
    st.builds(ModelChanged, state=_states),
    st.builds(CheckerChanged),
    st.builds(Started, ticket=_small),
    st.builds(Stepped, ticket=_small, done=_small),
    st.builds(Previewed, ticket=_small, index=_small, step=_small, jpeg=st.binary()),
    st.builds(ImageDone, ticket=_small, index=_small, safety=st.sampled_from(Safety)),
    st.builds(Failed, ticket=_small),
    st.builds(Dying),
)


def _same(one: object, other: object) -> bool:
    # NaN is not equal to itself, but its bytes are.
    return msgspec.msgpack.encode(one) == msgspec.msgpack.encode(other)


@given(_to_worker)
def test_what_the_engine_says_arrives_as_it_was(message: ToWorker) -> None:
    frame = encode_frame(message)
    assert body_length(frame[:HEADER_BYTES]) == len(frame) - HEADER_BYTES
    assert _same(decode_for_worker(frame[HEADER_BYTES:]), message)


@given(_from_worker)
def test_what_the_worker_says_arrives_as_it_was(message: FromWorker) -> None:
    frame = encode_frame(message)
    assert _same(decode_from_worker(frame[HEADER_BYTES:]), message)


@given(st.binary(max_size=200))
def test_bytes_that_are_no_message_are_one_kind_of_error(body: bytes) -> None:
    for decode in (decode_for_worker, decode_from_worker):
        try:
            decode(body)
        except ChannelError:
            continue


@given(_from_worker, st.data())
def test_a_damaged_message_is_read_or_refused_and_nothing_else(
    message: FromWorker, data: st.DataObject
) -> None:
    body = bytearray(encode_frame(message)[HEADER_BYTES:])
    place = data.draw(st.integers(0, len(body) - 1))
    body[place] = data.draw(st.integers(0, 255))
    try:
        decode_from_worker(bytes(body))
    except ChannelError:
        return


@pytest.mark.parametrize("length", [0, MAX_FRAME + 1, 2**32 - 1])
def test_a_frame_of_no_or_too_many_bytes_is_refused_before_it_is_read(length: int) -> None:
    with pytest.raises(ChannelError):
        body_length(struct.pack(">I", length))


def test_a_refusal_quotes_nothing_of_what_was_sent() -> None:
    body = msgspec.msgpack.encode({"t": "a secret prompt"})
    with pytest.raises(ChannelError) as refusal:
        decode_for_worker(body)
    assert "secret" not in str(refusal.value)


def test_the_workers_end_reads_frames_cut_into_any_pieces_and_sees_the_end() -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        frames = encode_frame(Cancel(1)) + encode_frame(Stop())
        for byte in frames[:-1]:
            ours.send(bytes([byte]))
        ours.send(frames[-1:])
        channel = Channel(theirs)
        assert channel.receive() == Cancel(1)
        assert channel.receive() == Stop()
        ours.sendall(encode_frame(Cancel(2))[:5])
        ours.shutdown(socket.SHUT_WR)
        assert channel.receive() is None


def test_an_inbox_hands_out_everything_in_order() -> None:
    inbox: Inbox[int] = Inbox()
    assert inbox.take(wait=False) == []
    for number in range(3):
        inbox.put(number)
    assert inbox.take(wait=True) == [0, 1, 2]


def test_a_jobs_texts_stay_out_of_its_repr() -> None:
    job = ImageJob(
        JobId("j"), ModelId("m"), ("secret",), 64, 64, 1, 1.0, (1,), negative_prompts=("hidden",)
    )
    assert "secret" not in repr(job)
    assert "hidden" not in repr(job)
