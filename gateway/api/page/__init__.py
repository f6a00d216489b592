"""The page at `/`: files of this package, and nothing else, make it."""

from gateway.api.page.files import Page, open_page

__all__ = ["Page", "open_page"]
