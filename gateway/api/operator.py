"""What the admin port has for its operator beside metrics, health and status."""

from collections.abc import Mapping

from gateway.api.explanations import Explanations
from gateway.api.router import Route


def operator_routes(explanations: Explanations) -> Mapping[str, Route]:
    """By path."""
    return {"/explain": Route("explain", {"GET": explanations.show})}
