"""Which of a request's attempts is shown, where two are under way that make the same images. Pure."""

from gateway.orchestrators.job_events import Advanced, News, StillThere


class Leading:
    """Whoever is ahead is shown, and nobody beside it: steps and previews of two are never mixed."""

    def __init__(self) -> None:
        #: Steps done, by attempt.
        self._done: dict[str, int] = {}
        self._leader = ""

    @property
    def leader(self) -> str:
        """The attempt that is shown; "" for none."""
        return self._leader

    def tell(self, attempt_id: str, news: News) -> bool:
        """Take in news of an attempt; whether they are to be shown."""
        done = self._done.get(attempt_id, 0)
        self._done[attempt_id] = max(done, news.done) if isinstance(news, Advanced) else done
        if not self._leader or self._done[attempt_id] > self._done[self._leader]:
            self._leader = attempt_id
        return attempt_id == self._leader or isinstance(news, StillThere)

    def leave(self, attempt_id: str) -> None:
        """The attempt is over, its request is not."""
        _ = self._done.pop(attempt_id, None)
        if self._leader == attempt_id:
            self._leader = max(self._done, key=lambda one: self._done[one], default="")
