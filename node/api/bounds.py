"""How much a request for a model may ask for: the operator's bounds, and what the model can take."""

from typing import Final

from network.wire.limits import Limits
from node.config.settings import LimitSettings
from node.engine.work import ModelFacts, ModelState

_MOST_PROMPT_PARTS: Final = 4


def limits_of(bounds: LimitSettings, state: ModelState) -> Limits:
    """Return the bounds of requests for the model of `state`."""
    # What a model that was never loaded can take is not known: it decides when it is.
    facts = state.facts or ModelFacts(prompt_parts=_MOST_PROMPT_PARTS, max_loras=bounds.max_loras)
    return Limits(
        size_multiple=facts.size_multiple,
        min_side=bounds.min_side,
        max_width=bounds.max_width,
        max_height=bounds.max_height,
        max_steps=bounds.max_steps,
        max_images=bounds.max_images,
        max_prompt_chars=bounds.max_prompt_chars,
        max_guidance=bounds.max_guidance,
        prompt_parts=facts.prompt_parts,
        max_loras=min(bounds.max_loras, facts.max_loras),
        max_body_bytes=bounds.max_body_bytes,
    )
