"""Where delivered images wait for their clients."""
