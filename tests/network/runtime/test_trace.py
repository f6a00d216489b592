"""The traceparent header, by the letter of W3C Trace Context."""

import asyncio
import re
import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st
from structlog.testing import capture_logs

from network.runtime.spans import is_asked_for, open_spans
from network.runtime.trace import begin_trace

TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"
SPAN = "00f067aa0ba902b7"
HEADER = re.compile("00-[0-9a-f]{32}-[0-9a-f]{16}-0[01]")


@pytest.mark.parametrize(
    ("text", "is_sampled"),
    [
        (f"00-{TRACE}-{SPAN}-01", True),
        (f"00-{TRACE}-{SPAN}-00", False),
        (f"00-{TRACE}-{SPAN}-03", True),
        (f"cc-{TRACE}-{SPAN}-01", True),
        (f"cc-{TRACE}-{SPAN}-01-what-the-future-holds", True),
    ],
)
def test_a_valid_header_is_continued_by_a_span_of_our_own(text: str, is_sampled: bool) -> None:  # noqa: FBT001
    trace = begin_trace([text])
    assert (trace.trace_id, trace.parent_id, trace.is_sampled) == (TRACE, SPAN, is_sampled)
    assert trace.span_id not in {SPAN, "0" * 16}
    assert trace.header == f"00-{TRACE}-{trace.span_id}-0{int(is_sampled)}"


@pytest.mark.parametrize(
    "headers",
    [
        [],
        [""],
        [f"00-{TRACE}-{SPAN}-01"] * 2,
        [f"ff-{TRACE}-{SPAN}-01"],
        [f"00-{TRACE}-{SPAN}-01-more"],
        [f"00-{'0' * 32}-{SPAN}-01"],
        [f"00-{TRACE}-{'0' * 16}-01"],
        [f"00-{TRACE.upper()}-{SPAN}-01"],
        [f"00-{TRACE}-{SPAN}-1"],
        [f"00-{TRACE}-{SPAN}-01\n"],
        [f" 00-{TRACE}-{SPAN}-01"],
    ],
)
def test_anything_else_begins_a_trace_of_its_own(headers: list[str]) -> None:
    one, two = begin_trace(headers), begin_trace(headers)
    assert one.trace_id not in {two.trace_id, TRACE}
    assert one.parent_id == ""
    assert HEADER.fullmatch(one.header)


@given(st.lists(st.text(max_size=80), max_size=2))
def test_no_header_of_a_stranger_reaches_ours(headers: list[str]) -> None:
    assert HEADER.fullmatch(begin_trace(headers).header)


async def test_without_the_extra_a_line_says_what_to_do_and_work_goes_on(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(sys.modules, "opentelemetry.exporter.otlp.proto.http.trace_exporter", None)
    asked = {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:9"}
    with capture_logs() as said:
        async with open_spans("limner-gateway", "1", asked) as spans:
            assert spans is None
    assert "limner[otel]" in said[0]["advice"]


async def test_nothing_of_opentelemetry_is_loaded_where_nobody_asks() -> None:
    code = (
        "import asyncio, sys, os\n"
        "from network.runtime.spans import open_spans\n"
        "async def main():\n"
        "    async with open_spans('limner', '1', {}) as spans:\n"
        "        assert spans is None\n"
        "asyncio.run(main())\n"
        "print([name for name in sys.modules if name.startswith('opentelemetry')])\n"
    )
    done = await asyncio.to_thread(
        subprocess.run, [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "[]"


def test_a_child_belongs_to_its_parent() -> None:
    parent = begin_trace([f"00-{TRACE}-{SPAN}-01"])
    child = parent.child()
    assert (child.trace_id, child.parent_id) == (TRACE, parent.span_id)
    assert child.span_id != parent.span_id


@pytest.mark.parametrize(
    ("environment", "expected"),
    [
        ({}, False),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:4318"}, True),
        ({"OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": "http://127.0.0.1:4318/v1/traces"}, True),
        ({"OTEL_TRACES_EXPORTER": "otlp"}, True),
        ({"OTEL_TRACES_EXPORTER": "none", "OTEL_EXPORTER_OTLP_ENDPOINT": "http://x"}, False),
        ({"OTEL_SDK_DISABLED": "true", "OTEL_EXPORTER_OTLP_ENDPOINT": "http://x"}, False),
    ],
)
def test_spans_are_sent_only_where_the_standard_variables_ask(
    environment: dict[str, str],
    expected: bool,  # noqa: FBT001
) -> None:
    assert is_asked_for(environment) is expected
