"""Why a request gets no work done, for edges that tell it in different words."""

from collections.abc import Mapping


class Refusal(Exception):  # noqa: N818  it is an answer
    """`reason` is a short fixed word for the metrics; `text` goes to gateways as it stands.

    `message` is for clients that match no phrases: the same without the words that steer gateways.
    """

    def __init__(
        self,
        status: int,
        text: str,
        reason: str,
        headers: Mapping[str, str] | None = None,
        *,
        message: str | None = None,
    ) -> None:
        super().__init__(text)
        self.status = status
        self.text = text
        self.reason = reason
        self.headers = headers
        self.message = text if message is None else message

    def with_headers(self, headers: Mapping[str, str]) -> "Refusal":
        """Return the same refusal with more headers."""
        return Refusal(
            self.status,
            self.text,
            self.reason,
            {**(self.headers or {}), **headers},
            message=self.message,
        )


def insufficient_capacity(reason: str) -> Refusal:
    """There is no room; the gateway tries another node and keeps this one."""
    return Refusal(
        503,
        f"insufficient capacity: {reason}",
        reason,
        {"Retry-After": "5"},
        message=f"no capacity available for runner: {reason}",
    )
