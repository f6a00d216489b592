"""Livepeer's contracts on an Ethereum chain: what is read, and what is sent."""
