"""One surface for a test, and what it logs meanwhile."""

import io
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from network.runtime import log
from tests.gateway.api.surface import Surface, open_surface


@pytest.fixture(autouse=True)
def said() -> io.StringIO:
    """The log as the program writes it."""
    stream = io.StringIO()
    log.configure("info", "json", stream)
    return stream


@pytest.fixture
async def surface(tmp_path: Path, said: io.StringIO) -> AsyncIterator[Surface]:
    del said
    async with open_surface(tmp_path / "images") as opened:
        yield opened
