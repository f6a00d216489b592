"""Everything that listens: gateways' requests and questions, and the operator's own."""
