"""From an accepted request to its images: who may start, who waits, and who is told to go."""
