"""Image files as their clients want them: formats, quality and metadata, through both interfaces."""

import base64
import importlib.util
import io
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image, ImageChops, ImageStat

from gateway.api.output import Output, metadata_of, parse_output, with_text
from gateway.orchestrators.image_files import sound_png
from network.errors import ProblemError
from network.wire.messages import TextToImageRequest
from tests.gateway.api.surface import Surface
from tests.gateway.pictures import bomb_png, real_png
from tests.gateway.stub_orchestrator import png

PICTURE = real_png(64, 64)
ID = "a-request-of-16-letters"
ASKED = {"prompt": "a secret boat", "negative_prompt": "a secret ship", "width": 64, "height": 64}
MEDIA = {"png": "image/png", "jpeg": "image/jpeg", "webp": "image/webp"}
SUFFIX = {"png": ".png", "jpeg": ".jpg", "webp": ".webp"}


@pytest.fixture(autouse=True)
def _real_pictures(surface: Surface) -> None:
    surface.dispatcher.picture = PICTURE


def opened(data: bytes) -> Image.Image:
    image = Image.open(io.BytesIO(data))
    image.load()
    return image


def difference(one: Image.Image, other: Image.Image) -> float:
    """Mean over pixels and channels, of 255."""
    apart = ImageStat.Stat(ImageChops.difference(one.convert("RGB"), other.convert("RGB")))
    return sum(apart.mean) / 3


def metadata_in(image: Image.Image) -> dict[str, Any]:
    if image.format == "PNG":
        text = getattr(image, "text", {}).get("limner", "null")
    else:
        comment = image.getexif().get_ifd(0x8769).get(0x9286, b"ASCII\0\0\0null")
        assert comment.startswith(b"ASCII\0\0\0")
        text = comment[8:]
    found: dict[str, Any] = orjson.loads(text)
    return found


async def fetched(surface: Surface, **fields: Any) -> tuple[str, str, bytes]:
    """The first image's URL, content type and file."""
    response = await surface.post({**ASKED, **fields}, X_Request_Id=ID)
    assert response.status == 200, await response.text()
    url = (await response.json())["images"][0]["url"]
    async with surface.client.get(url) as picture:
        return url, picture.headers["Content-Type"], await picture.read()


async def asked_as_openai(surface: Surface, **fields: Any) -> Any:
    body = {"prompt": "a secret boat", "size": "64x64", "response_format": "b64_json", **fields}
    headers = {"Authorization": "Bearer good", "X-Request-Id": ID}
    return await surface.client.post(
        f"{surface.url}/v1/images/generations", json=body, headers=headers
    )


async def test_by_default_an_image_is_the_file_that_was_made(surface: Surface) -> None:
    url, media, data = await fetched(surface)
    assert (url[-4:], media, data) == (".png", "image/png", PICTURE)


@pytest.mark.parametrize("form", MEDIA)
@pytest.mark.parametrize("quality", [30, 95])
async def test_a_format_has_its_suffix_and_content_type_and_looks_the_same(
    surface: Surface, form: str, quality: int
) -> None:
    url, media, data = await fetched(surface, output_format=form, output_quality=quality)
    assert url.endswith(SUFFIX[form])
    assert media == MEDIA[form]
    image = opened(data)
    assert (image.format, image.size) == (form.upper(), (64, 64))
    assert difference(image, opened(PICTURE)) < (40 if quality == 30 else 25)


async def test_less_quality_is_less_to_load(surface: Surface) -> None:
    sizes = [
        len((await fetched(surface, output_format="jpeg", output_quality=quality))[2])
        for quality in (5, 50, 100)
    ]
    assert sizes == sorted(sizes)
    assert sizes[0] * 2 < sizes[2]


@pytest.mark.parametrize("form", MEDIA)
async def test_metadata_tells_how_to_draw_the_image_again_and_no_prompt(
    surface: Surface, form: str
) -> None:
    fields = {"output_format": form, "embed_metadata": True, "seed": 7}
    _, _, data = await fetched(surface, **fields)
    told = metadata_in(opened(data))
    assert (told["seed"], told["model_id"]) == (7, "limner/shapes")
    assert told["request_id"] == surface.dispatcher.seen[-1][0], "as Limner-Job-Id tells it"
    assert (told["width"], told["num_inference_steps"]) == (64, 50)
    assert b"secret" not in data
    _, _, data = await fetched(surface, **fields, embed_prompt=True)
    told = metadata_in(opened(data))
    assert (told["prompt"], told["negative_prompt"]) == ("a secret boat", "a secret ship")


@pytest.mark.parametrize("form", MEDIA)
async def test_without_a_wish_nothing_is_written_into_a_file(surface: Surface, form: str) -> None:
    _, _, data = await fetched(surface, output_format=form, embed_prompt=True)
    assert metadata_in(opened(data)) is None
    assert b"secret" not in data
    assert ID.encode() not in data


async def test_orchestrators_learn_nothing_of_it(surface: Surface) -> None:
    await fetched(surface, output_format="webp", embed_metadata=True, seed=1)
    asked = surface.dispatcher.seen[-1][2]
    assert asked == TextToImageRequest.model_validate(
        {**ASKED, "seed": 1, "model_id": "limner/shapes"}
    )


async def test_openais_fields_do_the_same(surface: Surface) -> None:
    for form in MEDIA:
        response = await asked_as_openai(
            surface, output_format=form, output_compression=70, embed_metadata=True, seed=9
        )
        told = await response.json()
        assert response.status == 200, told
        assert told["output_format"] == form
        image = opened(base64.b64decode(told["data"][0]["b64_json"]))
        assert image.format == form.upper()
        assert metadata_in(image)["seed"] == 9
        warned = "output_compression" in response.headers.get("Limner-Warnings", "")
        assert warned is (form == "png")


async def test_a_stream_brings_the_format_too(surface: Surface) -> None:
    response = await asked_as_openai(surface, output_format="jpeg", stream=True)
    (line,) = [line for line in (await response.text()).splitlines() if line.startswith("data:")]
    told = orjson.loads(line[5:])
    assert told["output_format"] == "jpeg"
    assert opened(base64.b64decode(told["b64_json"])).format == "JPEG"


@pytest.mark.parametrize(
    ("field", "value"),
    [
        *(("output_format", wrong) for wrong in ("gif", "PNG", "", 1, None)),
        *(("output_quality", wrong) for wrong in (-1, 101, "90", 1.5, True, None)),
        *(("embed_metadata", wrong) for wrong in (1, "true", None)),
        ("embed_prompt", "yes"),
    ],
)
async def test_wrong_wishes_are_named(surface: Surface, field: str, value: object) -> None:
    response = await surface.post({**ASKED, field: value})
    told = (await response.json())["error"]
    assert (response.status, told["param"]) == (422, field)
    assert not surface.dispatcher.seen


@pytest.mark.parametrize(
    ("field", "value"),
    [("output_format", "gif"), ("output_compression", 101), ("embed_metadata", "yes")],
)
async def test_openais_clients_learn_of_them_with_400(
    surface: Surface, field: str, value: object
) -> None:
    response = await asked_as_openai(surface, **{field: value})
    told = (await response.json())["error"]
    assert (response.status, told["param"]) == (400, field)


@pytest.mark.parametrize("picture", [bomb_png(64, 64, 0), png(64, 64)])
async def test_what_cannot_be_read_is_sent_as_it_came_and_told(
    surface: Surface, picture: bytes
) -> None:
    surface.dispatcher.picture = picture
    response = await surface.post({**ASKED, "output_format": "webp"})
    url = (await response.json())["images"][0]["url"]
    assert url.endswith(".png")
    assert "could not be read" in response.headers["Limner-Warnings"]
    response = await asked_as_openai(surface, output_format="webp")
    told = await response.json()
    assert told["output_format"] == "png"
    assert "could not be read" in response.headers["Limner-Warnings"]


async def test_a_gateway_without_pillow_says_so_before_anything_is_made(
    surface: Surface, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda _: None)
    response = await surface.post({**ASKED, "output_format": "jpeg"})
    told = (await response.json())["error"]
    assert (response.status, told["param"]) == (400, "output_format")
    assert "limner[gateway]" in told["message"]
    assert not surface.dispatcher.seen
    _, _, data = await fetched(surface, embed_metadata=True)
    assert metadata_in(opened(data))["width"] == 64


def test_a_name_in_escapes_is_a_name() -> None:
    assert parse_output(rb'{"\u006futput_format": "webp"}').format == "webp"


@given(st.text(max_size=200), st.integers(0, 2**32 - 1))
def test_whatever_is_written_into_a_png_leaves_it_sound(prompt: str, seed: int) -> None:
    wanted = TextToImageRequest(prompt=prompt, model_id="m", width=64, height=64)
    text = metadata_of(Output("png", 90, True, True), wanted, seed, ID)  # noqa: FBT003
    assert text is not None
    written = with_text(PICTURE, text)
    assert metadata_in(opened(written))["prompt"] == prompt
    assert sound_png(written, 64, 64) == PICTURE


@given(
    st.dictionaries(
        st.sampled_from(["output_format", "output_quality", "embed_prompt", "x"]),
        st.one_of(st.none(), st.integers(-(2**53), 2**53), st.text(max_size=5), st.booleans()),
    )
)
def test_a_wish_is_within_bounds_or_refused(fields: dict[str, object]) -> None:
    try:
        found = parse_output(orjson.dumps(fields))
    except ProblemError:
        return
    assert 0 <= found.quality <= 100
    assert found.format in MEDIA
