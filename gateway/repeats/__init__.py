"""Requests that were asked before: answered from memory, or together with those under way.

Only a request whose outcome is determined can be repeated: one that names its seed. Which are the
same, who shares with whom, and what a repeat is charged is decided purely (`model`, `memory`,
`flights`); `repeating` acts on it, in the place of the dispatcher. Switched off, nothing of it is there.
"""
