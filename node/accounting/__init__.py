"""What is owed for which job, and the durable record of it."""
