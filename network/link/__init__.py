"""One authenticated connection, dialled by a node, over which its gateway opens connections to it."""
