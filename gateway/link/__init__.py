"""Links that nodes without a public address dial to this gateway."""
