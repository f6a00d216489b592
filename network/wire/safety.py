"""What an answer says of an image's safety, in the words that node and gateway share.

Livepeer's `nsfw` is false both where a checker found nothing and where none looked. The `safety`
field beside it, which other programs ignore, tells the two apart.
"""

from enum import StrEnum
from typing import Final

#: In the text of a refusal, so that a gateway knows it from other faults of a request.
REFUSED_AS_UNSAFE: Final = "refused by the orchestrator's safety policy"


class Safety(StrEnum):
    """What became of the safety check of one image."""

    PASSED = "passed"  # a checker looked and found nothing
    FLAGGED = "flagged"  # a checker objects; the image is as it was made
    BLURRED = "blurred"  # a checker objects; nothing can be made out in the image any more
    UNCHECKED = "unchecked"  # nobody looked: there is no checker, or the client wanted none
    UNKNOWN = "unknown"  # the orchestrator does not say, as others than Limner's do not

    @property
    def nsfw(self) -> bool:
        """Whether a checker objected."""
        return self in {Safety.FLAGGED, Safety.BLURRED}


_SAID: Final = {word.value: word for word in Safety}


def told_safety(word: object, *, nsfw: bool) -> Safety:
    """Return what a stranger's `safety` and `nsfw` tell together; any JSON value will do.

    Where the two contradict each other, the one that warns is believed.
    """
    safety = _SAID.get(word, Safety.UNKNOWN) if isinstance(word, str) else Safety.UNKNOWN
    return Safety.FLAGGED if nsfw and not safety.nsfw else safety
