"""A development chain with contracts that behave as the network's do."""
