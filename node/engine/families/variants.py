"""Which files hold a component's weights, and in which variant: by their names alone. Pure.

Diffusers and transformers name weights `<stem>[.<variant>].safetensors`, or in shards
`<stem>[.<variant>]-00001-of-00002.safetensors` beside an index that says which tensor is where;
older folders have the variant behind the shard's number.
"""

import re
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from typing import Final

PREFERRED: Final = ("fp16", "bf16")
_STEMS: Final = ("diffusion_pytorch_model", "model")
_WEIGHTS: Final = re.compile(
    rf"(?P<stem>{'|'.join(_STEMS)})(\.(?P<before>[a-z0-9_]+))?"
    r"(-(?P<shard>[0-9]{5})-of-(?P<shards>[0-9]{5}))?(\.(?P<behind>[a-z0-9_]+))?\.safetensors"
)
_MOST_SHARDS: Final = 1000
#: Components of these kinds are files of text; every other one has weights.
_WITHOUT_WEIGHTS: Final = re.compile(
    r".*(Tokenizer|TokenizerFast|Scheduler|ImageProcessor|FeatureExtractor|Processor)"
)


class VariantError(Exception):
    """No choice of variants gives every component its weights; the message names them."""


@dataclass(frozen=True, slots=True)
class Weights:
    """A component's weights in one variant. `missing` are shards that are not there."""

    files: tuple[str, ...]
    missing: tuple[str, ...] = ()
    index: str | None = None


def has_weights(class_name: str) -> bool:
    """Tell whether a component of this class is a model, and not a tokenizer or the like."""
    return _WITHOUT_WEIGHTS.fullmatch(class_name) is None


def weights_by_variant(names: Iterable[str]) -> dict[str | None, Weights]:
    """Sort a component's file names into variants; None is the plain one.

    Where both are there, diffusers takes shards only if there is no whole file, and so do we.
    """
    whole: dict[str | None, str] = {}
    shards: dict[str | None, dict[str, re.Match[str]]] = {}
    for name in sorted(names):
        found = _WEIGHTS.fullmatch(name)
        if found is None or (found["before"] and found["behind"]):
            continue
        variant = found["before"] or found["behind"]
        if found["shard"] is None:
            whole.setdefault(variant, name)
        elif int(found["shards"]) <= _MOST_SHARDS:
            shards.setdefault(variant, {})[name] = found
    sharded = {variant: _sharded(variant, found) for variant, found in shards.items()}
    return sharded | {variant: Weights((name,)) for variant, name in whole.items()}


def choose_variant(
    components: Mapping[str, Mapping[str | None, Weights]], wanted: str | None = None
) -> str | None:
    """Return the one variant to load a model in; a component without it has the plain weights.

    That is how diffusers loads: one name for all. None is plain. `wanted` goes first where some
    component has it; otherwise plain weights do, which every number format can be made of.
    Raises VariantError.
    """
    if wanted is not None and any(wanted in there for there in components.values()):
        candidates: tuple[str | None, ...] = (wanted,)
    else:
        named = {variant for there in components.values() for variant in there if variant}
        others = sorted(named - set(PREFERRED))
        candidates = (None, *(one for one in PREFERRED if one in named), *others)
    for variant in candidates:
        if all(variant in there or None in there for there in components.values()):
            return variant
    lacking = [name for name, there in components.items() if None not in there]
    raise VariantError(
        "no variant has the weights of all components: "
        + "; ".join(f"{name} has {_listed(components[name])}" for name in sorted(lacking))
    )


def chosen(there: Mapping[str | None, Weights], variant: str | None) -> Weights:
    """Return a component's weights in a variant that `choose_variant` returned."""
    return there[variant] if variant in there else there[None]


def _sharded(variant: str | None, found: Mapping[str, re.Match[str]]) -> Weights:
    first_name, first = next(iter(found.items()))
    count = int(first["shards"])
    place = first.start("shard")
    names = [
        f"{first_name[:place]}{number:05d}{first_name[place + 5 :]}"
        for number in range(1, count + 1)
    ]
    behind = f".{variant}" if variant else ""
    return Weights(
        tuple(name for name in names if name in found),
        tuple(name for name in names if name not in found),
        f"{first['stem']}.safetensors.index{behind}.json",
    )


def _listed(variants: Collection[str | None]) -> str:
    return " and ".join(sorted(variant or "plain" for variant in variants)) or "no weights"
