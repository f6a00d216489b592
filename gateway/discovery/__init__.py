"""Where orchestrators to buy from come from: the settings, a webhook, a signer, the chain; and a file
in the data directory that remembers them.
"""
