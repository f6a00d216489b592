"""What an operator may set, and what it comes to."""
