"""The remote signer: tickets over HTTP for clients and gateways that hold no key."""
