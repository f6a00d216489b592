"""The composition root of `limner-node run`."""

from node.app.core import VERSION
from node.app.node import RunningNode, open_node
from node.app.operator import expectation

__all__ = ["VERSION", "RunningNode", "expectation", "open_node"]
