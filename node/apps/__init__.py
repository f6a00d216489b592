"""What the node sells by the call: apps, its own models among them (Livepeer wire, 7.2)."""
