"""The operator's page: files that a program serves at its admin port, and what may come of them.

The program brings `index.html` and `page.js`; what both roles' pages have in common lies here. Nothing is
built, and nothing is fetched from anywhere else.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

_SHARED: Final = Path(__file__).parent
_KINDS: Final = {
    ".html": "text/html; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".svg": "image/svg+xml",
}
_POLICY: Final = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'; require-trusted-types-for 'script'"
)


@dataclass(frozen=True, slots=True)
class Asset:
    """One file as it is answered."""

    body: bytes
    content_type: str

    @property
    def headers(self) -> Mapping[str, str]:
        """Strict, and never stale after an upgrade."""
        return {
            "Content-Type": self.content_type,
            "Content-Security-Policy": _POLICY,
            "Cache-Control": "no-cache",
            "Referrer-Policy": "no-referrer",
            "X-Content-Type-Options": "nosniff",
            "Cross-Origin-Opener-Policy": "same-origin",
            "Cross-Origin-Resource-Policy": "same-origin",
        }


def read_page(folder: Path) -> Mapping[str, Asset]:
    """The files of a page by their paths, `index.html` as "/". Blocks."""
    found: dict[str, Asset] = {}
    for place in (_SHARED, folder):
        for file in sorted(place.iterdir()):
            kind = _KINDS.get(file.suffix)
            if kind is not None:
                path = "/" if file.name == "index.html" else f"/page/{file.name}"
                found[path] = Asset(file.read_bytes(), kind)
    return found
