"""The bearer keys of clients: made, kept as hashes, and checked from memory.

A key reads `limner_<key id>_<secret>`. The id finds the entry; the secret, 256 random bits, is known
to its holder alone. Only SHA-256 of the whole key is stored: fast is fine for a secret that
nobody can guess, and a stolen database opens nothing.
"""

from gateway.keys.model import (
    ANONYMOUS,
    Client,
    KeyGrant,
    KeyRecord,
    Team,
    UseLimits,
    called,
    limit_text,
    price_text,
)
from gateway.keys.ring import KeyRing
from gateway.keys.store import (
    create_key,
    limit_key,
    list_keys,
    list_teams,
    revoke_key,
    set_team,
)

__all__ = [
    "ANONYMOUS",
    "Client",
    "KeyGrant",
    "KeyRecord",
    "KeyRing",
    "Team",
    "UseLimits",
    "called",
    "create_key",
    "limit_key",
    "limit_text",
    "list_keys",
    "list_teams",
    "price_text",
    "revoke_key",
    "set_team",
]
