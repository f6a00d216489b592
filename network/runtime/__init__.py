"""What a long-running program needs and no protocol mentions."""
