"""What the operator puts into go-livepeer's `aiModels.json` to have a runner used. Pure."""

from collections.abc import Sequence
from typing import Final
from urllib.parse import urlsplit

import orjson

from network.capabilities import TEXT_TO_IMAGE_PIPELINE
from node.config.catalogue import ServedModel
from node.config.settings import is_wildcard
from node.container.token import Token

#: Stands for the name or address of this machine, where only the operator knows it.
UNKNOWN_HOST: Final = "THIS-MACHINE"


def reachable_url(listen_host: str, port: int, configured: str | None) -> str:
    """Return the URL for go-livepeer; with UNKNOWN_HOST in it where nothing tells the host."""
    if configured is not None:
        return configured
    if is_wildcard(listen_host):
        return f"http://{UNKNOWN_HOST}:{port}"
    shown = f"[{listen_host}]" if ":" in listen_host else listen_host
    return f"http://{shown}:{port}"


def ai_models_entries(models: Sequence[ServedModel], url: str, token: Token) -> tuple[str, ...]:
    """Return an entry of `aiModels.json` for each model, on one line.

    The token is not in it: the place where it is kept stands for it.
    """
    return tuple(orjson.dumps(_entry(model, url, token)).decode() for model in models)


def _entry(model: ServedModel, url: str, token: Token) -> dict[str, object]:
    entry: dict[str, object] = {
        "pipeline": TEXT_TO_IMAGE_PIPELINE,
        "model_id": model.model_id,
        "warm": model.warm,
        # Jobs at once: they share the device's steps. Its own queue would hide from gateways
        # how busy it is.
        "capacity": model.capacity,
        "url": url,
    }
    if token.value:
        kept = f"content of {token.path}" if token.path is not None else "this runner's token"
        entry["token"] = f"<{kept}>"
    return entry


def needs_host(url: str) -> bool:
    """Tell whether the operator has to put the machine's name into `url`."""
    return (urlsplit(url).hostname or "").upper() == UNKNOWN_HOST
