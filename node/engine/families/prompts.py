"""Prompts after the text encoders, and what the encoders did not read of them. No torch to run."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True, slots=True)
class TextEmbedding:
    """One text encoded: `tokens` of shape (1, tokens, width), `pooled` of shape (1, width)."""

    tokens: "torch.Tensor"
    pooled: "torch.Tensor | None" = None


@dataclass(frozen=True, slots=True)
class EncodedPrompt:
    """A job's prompts. `negative` is there only where the model runs an unconditional half.

    `warnings` say, without quoting them, what of the texts had no effect.
    """

    positive: TextEmbedding
    negative: TextEmbedding | None = None
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class TextReader:
    """A text encoder's tokenizer and how many tokens it takes, begin and end marks included."""

    tokenizer: Any
    most_tokens: int


def cut_warnings(
    readers: Sequence[TextReader], prompts: Sequence[str], what: str
) -> tuple[str, ...]:
    """Say which encoders read only the beginning of their prompt; `what` names it for the client.

    `prompts` are a job's parts: one part a reader, a missing one falls back to the first.
    """
    warnings = []
    for number, reader in enumerate(readers, start=1):
        text = prompts[number - 1] if number <= len(prompts) else prompts[0]
        marks = reader.tokenizer.num_special_tokens_to_add()
        tokens = len(reader.tokenizer(text).input_ids) - marks
        most = reader.most_tokens - marks
        if tokens > most:
            who = "the model" if len(readers) == 1 else f"text encoder {number}"
            warnings.append(
                f"{who} reads {most} of the {what}'s {tokens} tokens and cuts the rest"
            )
    return tuple(warnings)


def parts_of(texts: Sequence[str], encoders: int) -> tuple[str | None, ...]:
    """Return a text for each encoder; None for a missing one, where the first stands in."""
    return (*texts, *(None,) * (encoders - len(texts)))
