"""Everything that crosses a socket between client, gateway and node."""
