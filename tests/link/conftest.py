"""Nodes of these tests hang up at once when they stop."""

import pytest


@pytest.fixture(autouse=True)
def _short_goodbyes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("node.api.listener._GOODBYE_SECONDS", 0.2)
