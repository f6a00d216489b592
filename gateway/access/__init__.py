"""Who may ask, beside the holders of the gateway's own keys: addresses without a key, and others' keys."""
