"""Carries a request to the best orchestrator that takes it, and pays for what was delivered."""

from gateway.dispatch.dispatcher import Dispatcher
from gateway.dispatch.journey import (
    Buyer,
    Delivered,
    DispatchResult,
    Keep,
    RequestProgress,
    Routing,
)
from gateway.dispatch.showcase import Showcase, Showing

__all__ = [
    "Buyer",
    "Delivered",
    "DispatchResult",
    "Dispatcher",
    "Keep",
    "RequestProgress",
    "Routing",
    "Showcase",
    "Showing",
]
