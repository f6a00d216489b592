"""The commands of `limner-gateway`, one module each."""
