"""Every app of this node by its route, wherever it comes from."""

from collections.abc import Iterable
from typing import Protocol

from node.apps.model import App, Listing


class Apps(Protocol):
    """Apps that come and go, or stay: our own models, and what others registered."""

    def find(self, route: str) -> App | None:
        """Return the app at `/apps/{route}`, from memory."""
        ...

    def all(self) -> Iterable[App]:
        """Return those that can be called now, from memory."""
        ...


class Shop:
    """All apps of all sources; where two share a route, the earlier source has it."""

    def __init__(self, *sources: Apps) -> None:
        self._sources = sources

    def find(self, route: str) -> App | None:
        for source in self._sources:
            app = source.find(route)
            if app is not None:
                return app
        return None

    def listings(self) -> list[Listing]:
        """What `GET /discovery` tells; one for each route."""
        found: dict[str, Listing] = {}
        for source in self._sources:
            for app in source.all():
                listing = app.listing()
                found.setdefault(listing.route, listing)
        return list(found.values())
