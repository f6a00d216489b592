"""Carries a request to the best orchestrator that takes it, and pays for what was delivered."""

from gateway.dispatch.dispatcher import Dispatcher
from gateway.dispatch.journey import Buyer, DispatchResult, RequestProgress, Routing
from gateway.dispatch.showcase import Showcase, Showing

__all__ = [
    "Buyer",
    "DispatchResult",
    "Dispatcher",
    "RequestProgress",
    "Routing",
    "Showcase",
    "Showing",
]
