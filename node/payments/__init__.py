"""Tickets that come in: quoted, taken, and redeemed."""
