"""What follows from making the same image at two or three orchestrators. Pure.

One opinion against another tells that one of them is wrong, and not which: makes of orchestrators may
draw noise in different ways. A third decides, or an orchestrator that the operator trusts.
"""

from dataclasses import dataclass
from enum import Enum


class Finding(Enum):
    """What a check came to; the values are labels of a metric."""

    AGREED = "agreed"
    #: One orchestrator stands against two others, or against the trusted one.
    DISAGREED = "disagreed"
    #: Nobody could be asked, or all images differ.
    OPEN = "open"


@dataclass(frozen=True, slots=True)
class Verdict:
    """`odd` is the URI that stands alone; empty where nobody does."""

    finding: Finding
    odd: str = ""


def after_two(checked: str, *, are_alike: bool, is_second_trusted: bool) -> Verdict | None:
    """`checked` and another one made the same image; None where a third opinion is needed."""
    if are_alike:
        return Verdict(Finding.AGREED)
    return Verdict(Finding.DISAGREED, checked) if is_second_trusted else None


def after_three(
    checked: str, second: str, *, is_third_like_checked: bool, is_third_like_second: bool
) -> Verdict:
    """The first two disagreed, and somebody else made the image a third time."""
    if is_third_like_checked == is_third_like_second:
        return Verdict(Finding.OPEN)
    return Verdict(Finding.DISAGREED, second if is_third_like_checked else checked)
