"""What a stranger sees at a service URI: the name, the connection, the certificate, who answers and how fast."""
