"""Probabilistic tickets, pure: the same rules for the one who pays and the one who is paid."""
