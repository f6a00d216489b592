"""Answers of strangers: read exactly, or refused with a reason."""

from contextlib import suppress
from typing import Any

import orjson
import pybase64
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.orchestrators.answers import (
    Expected,
    Link,
    OrchestratorFailed,
    OrchestratorRefused,
    Refused,
    check_pictures,
    parse_answer,
    parse_parts,
    refusal,
)
from network.wire import image_parts
from network.wire.safety import REFUSED_AS_UNSAFE, Safety
from tests.gateway.stub_orchestrator import png

WANTED = Expected(images=2, width=64, height=32, seed=5)
_PNG = png(64, 32)


def entry(data: bytes = _PNG, seed: Any = 5, **changes: Any) -> dict[str, Any]:
    url = "data:image/png;base64," + pybase64.b64encode_as_string(data)
    return {"url": url, "seed": seed, "nsfw": False, **changes}


def answer(*entries: dict[str, Any], **more: Any) -> bytes:
    return orjson.dumps({"images": list(entries), **more})


def test_images_come_out_as_they_went_in() -> None:
    body = answer(entry(png(64, 32, marker=1)), entry(png(64, 32, marker=2), 6, nsfw=True), x=[1])
    pictures = check_pictures(parse_answer(body, 2), WANTED)
    assert [p.png for p in pictures] == [png(64, 32, marker=1), png(64, 32, marker=2)]
    assert [(p.seed, p.safety) for p in pictures] == [(5, Safety.UNKNOWN), (6, Safety.FLAGGED)]


@pytest.mark.parametrize(
    ("said", "nsfw", "safety"),
    [
        ("passed", False, Safety.PASSED),
        ("unchecked", False, Safety.UNCHECKED),
        ("blurred", True, Safety.BLURRED),
        ("unknown", False, Safety.UNKNOWN),
        # What warns is believed, whichever of the two it is.
        ("passed", True, Safety.FLAGGED),
        ("flagged", False, Safety.FLAGGED),
        # Words of other programs, and what is no word at all.
        ("checked by us", False, Safety.UNKNOWN),
        (None, False, Safety.UNKNOWN),
        ({"passed": ["passed"]}, False, Safety.UNKNOWN),
        (1, True, Safety.FLAGGED),
    ],
)
def test_the_safety_of_an_image_is_what_its_maker_says(
    said: Any,
    nsfw: bool,  # noqa: FBT001
    safety: Safety,
) -> None:
    media = parse_answer(answer(entry(nsfw=nsfw, safety=said), entry(seed=6)), 2)
    assert [medium.safety for medium in media] == [safety, Safety.UNKNOWN]


def test_spaces_and_other_orders_of_keys_are_no_difference() -> None:
    text = answer(entry(), entry(seed=6)).decode()
    spaced = text.replace('"url":', '\n "url" :  ').replace(",", " ,\t")
    spaced = spaced.replace("base64 ,\t", "base64,")
    assert check_pictures(parse_answer(spaced.encode(), 2), WANTED)


def test_links_are_told_from_images() -> None:
    media = parse_answer(answer(entry(url="https://o/stream/a.png"), entry(seed=6)), 2)
    assert media[0].image == Link("https://o/stream/a.png")
    assert media[1].image == _PNG
    with pytest.raises(OrchestratorFailed, match="link"):
        check_pictures(media, WANTED)


@pytest.mark.parametrize(
    ("body", "why"),
    [
        (b"", "not the JSON"),
        (b"null", "not the JSON"),
        (b"\xff\xfe", "not the JSON"),
        (b'{"images":' + b"[" * 100_000, "not the JSON"),
        (b'{"images":"data:image/png;base64,', "not the JSON"),
        (answer(entry()), "1 images where 2"),
        (answer(entry(), entry(), entry()), "not the JSON|3 images where 2"),
        (answer(entry(url=0), entry()), "not strings"),
        (answer(entry(url=1), entry(url=0)), "not strings"),
        (answer(entry(url=None), entry()), "not the JSON"),
        (answer(entry(seed="5"), entry()), "not the JSON"),
        (answer(entry(seed=5.5), entry()), "not the JSON"),
        (answer(entry(nsfw=None), entry()), "not the JSON"),
        (answer(entry(nsfw=0), entry()), "not the JSON"),
        (answer(entry(url="data:image/jpeg;base64,AAAA"), entry()), "not a PNG data URL"),
        (answer(entry(url="DATA:text/html,x"), entry()), "not a PNG data URL"),
        (answer(entry(url="x" * 5000), entry()), "too long"),
        (answer(entry(url="data:image/png;base64,A*=="), entry()), "base64"),
    ],
)
def test_what_is_no_answer_is_refused(body: bytes, why: str) -> None:
    with pytest.raises(OrchestratorFailed, match=why):
        parse_answer(body, 2)


@pytest.mark.parametrize(
    ("data", "why"),
    [
        (b"", "not a PNG"),
        (b"GIF89a" + bytes(100), "not a PNG"),
        (png(32, 64), "32x64"),
        (png(64, 32)[:-1], "cut off"),
        (png(64, 32).replace(b"IHDR", b"IHDX"), "broken PNG header"),
        (_PNG[:20] + b"\x00" + _PNG[21:25] + b"\x01" + _PNG[26:], "broken PNG header"),
        (png(64, 32, filler=200_000), "larger than its pixels"),
    ],
)
def test_what_is_no_image_of_the_size_is_refused(data: bytes, why: str) -> None:
    media = parse_answer(answer(entry(data), entry(seed=6)), 2)
    with pytest.raises(OrchestratorFailed, match=why):
        check_pictures(media, WANTED)


def test_another_seed_than_asked_is_refused() -> None:
    media = parse_answer(answer(entry(), entry(seed=5)), 2)
    with pytest.raises(OrchestratorFailed, match="seed 5 where 6"):
        check_pictures(media, WANTED)


@given(st.binary(max_size=400), st.integers(0, 400))
def test_damage_never_raises_anything_else(noise: bytes, position: int) -> None:
    body = answer(entry(), entry(seed=6))
    damaged = body[:position] + noise + body[position + len(noise) :]
    with suppress(OrchestratorFailed):
        check_pictures(parse_answer(damaged, 2), WANTED)


@pytest.mark.parametrize(
    ("status", "text", "kind"),
    [
        (503, "insufficient capacity\n", Refused.BUSY),
        (500, "Insufficient Capacity: queue_full", Refused.BUSY),
        (403, "OrchestratorCapped", Refused.BUSY),
        (403, "invalid auth token", Refused.CREDENTIALS),
        (403, "expired auth token", Refused.CREDENTIALS),
        (400, "TicketParams expired", Refused.CREDENTIALS),
        (500, "text-to-image container returned 400: no such LoRA", Refused.CLIENT_FAULT),
        (413, "text-to-image returned 400: the body is too large", Refused.CLIENT_FAULT),
        (400, "bad parameters", Refused.CLIENT_FAULT),
        (400, f"text-to-image returned 400: {REFUSED_AS_UNSAFE}: objects", Refused.UNSAFE),
        (400, REFUSED_AS_UNSAFE, Refused.UNSAFE),
        (400, "expected price 1 wei per pixel is below the 2 that m costs", Refused.PRICE),
        (400, "invalid expected price sent with payment", Refused.PRICE),
        (400, "Insufficient balance", Refused.BALANCE),
        (400, "invalid ticket senderNonce: already seen", Refused.CREDENTIALS),
        (400, "invalid recipientRand for ticket recipientRandHash", Refused.CREDENTIALS),
        (400, "invalid ticket signature", None),
        (400, "deposit and reserve for sender 0x1 is set to unlock soon", None),
        (403, "sig check failed", None),
        (500, "", None),
        (200, "all is well", None),
        (302, "moved", None),
    ],
)
def test_refusals_are_sorted_by_their_words(status: int, text: str, kind: Refused | None) -> None:
    error = refusal(status, text)
    if kind is None:
        assert isinstance(error, OrchestratorFailed)
        assert str(status) in str(error)
    else:
        assert isinstance(error, OrchestratorRefused)
        assert error.kind is kind


def test_a_refusals_text_is_short_clean_and_without_the_prefix() -> None:
    error = refusal(500, "X returned 400:  too \x00 long\r\nSet-Cookie: a" + "b" * 9000)
    assert isinstance(error, OrchestratorRefused)
    assert error.text.startswith("too  long Set-Cookie: a")
    assert len(error.text) <= 500


def parts(*images: bytes, seed: int = 5) -> bytes:
    return image_parts.encode(
        [(image, {"seed": seed + n, "nsfw": n == 1}) for n, image in enumerate(images)]
    )


def test_parts_come_out_as_they_went_in() -> None:
    images = [png(64, 32, marker=1), png(64, 32, marker=2)]
    pictures = check_pictures(parse_parts(bytearray(parts(*images)), 2), WANTED)
    assert [p.png for p in pictures] == images
    assert [(p.seed, p.safety) for p in pictures] == [(5, Safety.UNKNOWN), (6, Safety.FLAGGED)]


@given(st.lists(st.binary(min_size=1, max_size=200), min_size=1, max_size=4))
def test_parts_are_cut_where_they_were_joined(images: list[bytes]) -> None:
    media = parse_parts(parts(*images), len(images))
    assert [medium.image for medium in media] == images


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        (parts(_PNG, _PNG)[:-1], "has not the images"),
        (parts(_PNG, _PNG) + b"x", "goes on after"),
        (parts(_PNG), "sent 1 images where 2"),
        (parts(_PNG, b""), "has not the images"),
        (
            b'{"images":[{"url":-1,"seed":5,"nsfw":false},{"url":2,"seed":6,"nsfw":false}]}\nx',
            "not",
        ),
        (answer(entry(), entry(seed=6)) + b"\n", "has not the images"),
        (b"x" * 20_000 + b"\n", "not the JSON"),
        (b"", "not the JSON"),
    ],
)
def test_parts_that_do_not_fit_are_a_fault(body: bytes, reason: str) -> None:
    with pytest.raises(OrchestratorFailed, match=reason):
        parse_parts(body, 2)


@given(st.binary(max_size=300))
def test_any_bytes_as_parts_are_read_or_refused(body: bytes) -> None:
    with suppress(OrchestratorFailed):
        parse_parts(body, 1)
