"""What the node tells gateways about itself, and keeping it true."""
