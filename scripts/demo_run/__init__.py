"""`scripts/demo`: a node and a gateway on this machine, and one image through both."""
