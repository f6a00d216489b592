"""Which handler answers a method and a path. Pure; paths are compared undecoded."""

from collections.abc import Mapping
from dataclasses import dataclass

from gateway.api.exchange import Handler
from network.errors import ProblemError
from network.wire import problems


@dataclass(frozen=True, slots=True)
class Route:
    """One resource: its name in logs and metrics, and a handler for each method."""

    name: str
    methods: Mapping[str, Handler]

    @property
    def allowed(self) -> tuple[str, ...]:
        implied = ("HEAD", "OPTIONS") if "GET" in self.methods else ("OPTIONS",)
        return (*self.methods, *implied)

    def handler(self, method: str) -> Handler:
        """Raises ProblemError 405 with the methods that would do."""
        found = self.methods.get("GET" if method == "HEAD" else method)
        if found is None:
            raise ProblemError(problems.method_not_allowed(self.allowed))
        return found


class Router:
    """Exact paths first, then the longest prefix; what follows a prefix is its handler's to judge.

    A prefix may go on with "*" and a suffix: "/jobs/*/events".
    """

    def __init__(self, exact: Mapping[str, Route], prefixed: Mapping[str, Route]) -> None:
        self._exact = dict(exact)
        self._prefixed = [
            (*pattern.partition("*")[::2], route)
            for pattern, route in sorted(prefixed.items(), key=lambda pair: -len(pair[0]))
        ]

    @property
    def names(self) -> tuple[str, ...]:
        routes = [*self._exact.values(), *(route for *_, route in self._prefixed)]
        return tuple(dict.fromkeys(route.name for route in routes))

    def find(self, path: str) -> Route:
        """Raises ProblemError 404."""
        route = self._exact.get(path)
        if route is not None:
            return route
        for prefix, suffix, candidate in self._prefixed:
            if path.startswith(prefix) and path.endswith(suffix):
                return candidate
        raise ProblemError(problems.not_found("path"))
