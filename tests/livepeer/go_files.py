"""The memory store of go-livepeer: result images behind links, for a while (wire, 3.6)."""

from typing import Final

LIFE_SECONDS: Final = 600.0
#: Of one request's files, only so many are kept.
MOST: Final = 12


class GoFiles:
    """Times are seconds of any clock."""

    def __init__(self) -> None:
        self._files: dict[str, tuple[float, bytes]] = {}

    def put(self, session: str, name: str, data: bytes, now: float) -> None:
        """A file of the same name is overwritten."""
        self._files[f"{session}/{name}"] = (now + LIFE_SECONDS, data)
        own = [path for path in self._files if path.startswith(f"{session}/")]
        for old in own[:-MOST]:
            del self._files[old]

    def get(self, path: str, now: float) -> bytes | None:
        expires, data = self._files.get(path, (0.0, b""))
        return None if now > expires else data
