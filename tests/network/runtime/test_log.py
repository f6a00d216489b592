"""Lines are structured, and hold no secrets."""

import io
import logging
from collections.abc import Iterator
from typing import Any

import orjson
import pytest
import structlog

from network.runtime.log import REDACTED, configure, is_secret


@pytest.fixture(autouse=True)
def _logging_as_before() -> Iterator[None]:
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield
    root.handlers[:], root.level = handlers, level
    structlog.reset_defaults()
    structlog.contextvars.clear_contextvars()


@pytest.fixture
def lines() -> io.StringIO:
    stream = io.StringIO()
    configure("info", "json", stream)
    return stream


def last(stream: io.StringIO) -> dict[str, Any]:
    line: dict[str, Any] = orjson.loads(stream.getvalue().splitlines()[-1])
    return line


def test_a_line_is_one_json_object(lines: io.StringIO) -> None:
    structlog.contextvars.bind_contextvars(request_id="r1")
    structlog.get_logger().info("job done", fee=5, price=3.5, odd={1: object})
    line = last(lines)
    assert line["event"] == "job done"
    assert (line["level"], line["request_id"], line["fee"]) == ("info", "r1", 5)
    assert line["timestamp"].endswith("Z")


def test_fields_that_hold_secrets_are_blanked(lines: io.StringIO) -> None:
    structlog.get_logger().info(
        "asked",
        prompt="a cat",
        negative_prompt="a dog",
        api_key="k",
        headers={"Authorization": "Bearer k", "Accept": "json", "deeper": {"auth_token": "t"}},
        key_id="kept",
    )
    line = last(lines)
    assert line["prompt"] == line["negative_prompt"] == line["api_key"] == REDACTED
    assert line["headers"] == {
        "Authorization": REDACTED,
        "Accept": "json",
        "deeper": {"auth_token": REDACTED},
    }
    assert line["key_id"] == "kept"


@pytest.mark.parametrize("name", ["token", "private_key", "X-Api-Key", "prompts", "passphrase"])
def test_secrets_are_known_by_their_last_word(name: str) -> None:
    assert is_secret(name)


@pytest.mark.parametrize("name", ["key_id", "keystore", "token_count", "monkey", "prompt_parts"])
def test_harmless_names_are_kept(name: str) -> None:
    assert not is_secret(name)


def test_an_exception_is_part_of_its_line(lines: io.StringIO) -> None:
    try:
        raise ValueError("broken")  # noqa: TRY301
    except ValueError:
        structlog.get_logger().exception("job failed")
    assert "ValueError: broken" in last(lines)["exception"]


def test_libraries_are_heard_from_warnings_upwards(lines: io.StringIO) -> None:
    logging.getLogger("aiohttp.access").info("GET /")
    assert lines.getvalue() == ""
    logging.getLogger("aiohttp.server").warning("slow %s", "client", extra={"api_key": "k"})
    line = last(lines)
    assert (line["event"], line["level"], line["api_key"]) == ("slow client", "warning", REDACTED)


def test_lower_levels_are_left_out(lines: io.StringIO) -> None:
    structlog.get_logger().debug("detail")
    assert lines.getvalue() == ""


def test_console_lines_are_for_people() -> None:
    stream = io.StringIO()
    configure("debug", "console", stream)
    structlog.get_logger().debug("detail", token="t")
    assert "detail" in stream.getvalue()
    assert REDACTED in stream.getvalue()


def test_a_traceback_for_people_shows_no_local_variables() -> None:
    stream = io.StringIO()
    configure("info", "console", stream)
    hidden = "a cat"[::-1]
    try:
        raise ValueError("broken")  # noqa: TRY301
    except ValueError:
        structlog.get_logger().exception("job failed")
    assert "ValueError: broken" in stream.getvalue()
    assert hidden not in stream.getvalue()


def test_an_unknown_level_is_refused() -> None:
    with pytest.raises(ValueError, match="'loud' is none of debug"):
        configure("loud")
