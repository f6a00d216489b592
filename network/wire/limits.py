"""How much a request may ask for, and the patterns its texts must fit.

The patterns are spelled in the subset that Python, Rust and ECMAScript read alike, because
the published schema and the check here must accept exactly the same bodies.
"""

from dataclasses import dataclass
from typing import Final

#: The last image of a request has at most this seed; also exact in JavaScript.
LARGEST_SEED: Final = 2**32 - 1
MAX_MODEL_ID_CHARS: Final = 200
MAX_LORAS_CHARS: Final = 2000

#: What no prompt may consist of alone: controls, Unicode's spaces and zero-width marks.
#: Spelled out because `\s` differs between dialects.
BLANK: Final = (
    "\u0000-\u0020\u007f-\u00a0\u1680\u180e\u2000-\u200d\u2028\u2029\u202f\u205f\u2060\u3000\ufeff"
)

_SPACE: Final = r"[ \t\n\r]*"
_WEIGHT: Final = r"(0|[1-9][0-9]?)(\.[0-9]{1,20})?([eE]-[0-9]{1,2})?"
_LORA: Final = (
    rf'{_SPACE}"[A-Za-z0-9._/-]{{1,128}}"{_SPACE}:{_SPACE}({_WEIGHT}|"{_WEIGHT}"){_SPACE}'
)


@dataclass(frozen=True, slots=True)
class Limits:
    """Bounds of one surface; lengths in characters, sides in pixels."""

    size_multiple: int = 8
    min_side: int = 64
    max_width: int = 1024
    max_height: int = 1024
    max_steps: int = 100
    max_images: int = 4
    max_prompt_chars: int = 2000
    max_guidance: float = 30.0
    #: Parts between `|` that the model family takes, one for each text encoder.
    prompt_parts: int = 1
    max_loras: int = 0
    max_body_bytes: int = 256 * 1024

    def sides(self, largest: int) -> tuple[int, int]:
        """The smallest and the largest allowed side up to `largest`, both multiples."""
        multiple = self.size_multiple
        return -(-self.min_side // multiple) * multiple, largest // multiple * multiple


def model_id_pattern() -> str:
    """No control characters: ids go into logs, tables and headers."""
    return "^[^\u0000-\u001f\u007f-\u009f]*$"


def prompt_pattern(parts: int) -> str:
    """1 to `parts` parts between `|`, none of them blank."""
    part = rf"[^|]*[^|{BLANK}][^|]*"
    return rf"^{part}(\|{part}){{0,{parts - 1}}}$"


def negative_prompt_pattern(parts: int) -> str:
    """At most `parts` parts, any of which may be empty."""
    return rf"^[^|]*(\|[^|]*){{0,{parts - 1}}}$"


def loras_pattern(most: int) -> str:
    """Nothing, or a JSON object of at most `most` names with weights from 0 to below 100."""
    entries = rf"{_LORA}(,{_LORA}){{0,{most - 1}}}" if most else ""
    inside = rf"({entries}|{_SPACE})" if most else _SPACE
    return rf"^{_SPACE}(\{{{inside}\}}{_SPACE})?$"
