"""The gateway's HTTP surface: what clients and the operator can ask."""
