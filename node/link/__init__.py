"""Links that this node dials to the gateways that its operator named."""
