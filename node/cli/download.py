"""Fetches a model from the Hugging Face hub: what this node loads of it, and nothing else."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Final

import httpx2
import orjson
from huggingface_hub import HfApi, constants, hf_hub_download, snapshot_download
from huggingface_hub.errors import (
    GatedRepoError,
    HfHubHTTPError,
    HFValidationError,
    LocalEntryNotFoundError,
    OfflineModeIsEnabled,
    RemoteEntryNotFoundError,
    RepositoryNotFoundError,
    RevisionNotFoundError,
    RevisionResolutionError,
)
from huggingface_hub.hf_api import RepoFile

from network.errors import LimnerError
from network.units import ModelId
from node.config.model_folders import INDEX
from node.engine.families.folder import NEVER_LOADED
from node.engine.families.variants import (
    VariantError,
    Weights,
    choose_variant,
    chosen,
    has_weights,
    weights_by_variant,
)

_TEXTS: Final = frozenset({".json", ".txt", ".model"})
_CARD: Final = "README.md"
_LICENCE: Final = "LICENSE"
_SECRET: Final = (401, 403)


class PullError(LimnerError):
    """The model was not fetched; the message says why and what to do."""


@dataclass(frozen=True, slots=True)
class Selection:
    """What to fetch: paths in the repository with their bytes, and the variant of the weights."""

    files: Mapping[str, int]
    variant: str | None

    @property
    def size(self) -> int:
        return sum(self.files.values())


def select_files(
    files: Mapping[str, int], components: Mapping[str, str], wanted: str | None
) -> Selection:
    """Choose from a repository's paths what a model of these components (name: class) is made of.

    Weights are safetensors, in the `wanted` variant where there is one. Pure. Raises PullError
    naming a component that has none.
    """
    inside: dict[str, list[str]] = {name: [] for name in components}
    for path in files:
        parts = PurePosixPath(path).parts
        if len(parts) == 2 and parts[0] in inside:  # noqa: PLR2004  the component and its file
            inside[parts[0]].append(parts[1])
    loaded = {name: class_name for name, class_name in components.items() if inside[name]}
    loaded = {name: found for name, found in loaded.items() if name not in NEVER_LOADED}
    there = {
        name: _weights(name, inside[name])
        for name, class_name in loaded.items()
        if has_weights(class_name)
    }
    try:
        variant = choose_variant(there, wanted)
    except VariantError as error:
        raise PullError(str(error)) from None
    taken = [path for path in files if path in (INDEX, _CARD) or path.startswith(_LICENCE)]
    for name in loaded:
        texts = [file for file in inside[name] if PurePosixPath(file).suffix in _TEXTS]
        if name in there:
            weights = chosen(there[name], variant)
            texts = [file for file in texts if ".index." not in file or file == weights.index]
            taken += [f"{name}/{file}" for file in weights.files]
        taken += [f"{name}/{file}" for file in texts]
    return Selection({path: files[path] for path in taken}, variant)


def _weights(name: str, names: Sequence[str]) -> Mapping[str | None, Weights]:
    found = weights_by_variant(names)
    whole = {variant: weights for variant, weights in found.items() if not weights.missing}
    if not whole:
        what = ", ".join(sorted(names)[:6])
        raise PullError(
            f"{name} has no whole weights in .safetensors files (there are {what}); other formats "
            "can run code when they are opened, and are never fetched"
        )
    return whole


class Hub:
    """One hub, by default the one that HF_ENDPOINT names. The library takes its token from HF_TOKEN."""

    def __init__(self, endpoint: str | None = None) -> None:
        self._api = HfApi(endpoint=endpoint)
        self._endpoint = endpoint or constants.ENDPOINT

    def select(
        self, model_id: ModelId, revision: str, wanted: str | None, cache: Path
    ) -> tuple[str, Selection]:
        """Return the commit and the files to fetch. Raises PullError."""
        try:
            commit = self._api.resolve_revision(model_id, revision=revision, cache_dir=cache)
            files = {
                entry.path: entry.size
                for entry in self._api.list_repo_tree(model_id, recursive=True, revision=commit)
                if isinstance(entry, RepoFile)
            }
            if INDEX not in files:
                raise PullError(
                    f"{model_id} is no model in diffusers layout: it has no {INDEX} at {revision}"
                )
            index = hf_hub_download(
                model_id, INDEX, revision=commit, cache_dir=cache, endpoint=self._endpoint
            )
        except (httpx2.HTTPError, OSError, HFValidationError, RevisionResolutionError) as error:
            raise PullError(_reason(error, self._endpoint, model_id, revision)) from error
        return str(commit), select_files(files, _components(Path(index)), wanted)

    def fetch(self, model_id: ModelId, commit: str, selection: Selection, cache: Path) -> Path:
        """Fetch what is not there yet; returns the model's folder. Raises PullError.

        A connection that breaks is taken up again where it broke, and a call that failed is
        repeated without the files that had arrived whole.
        """
        try:
            return Path(
                snapshot_download(
                    model_id,
                    revision=commit,
                    cache_dir=cache,
                    allow_patterns=[_literally(path) for path in selection.files],
                    endpoint=self._endpoint,
                )
            )
        except (httpx2.HTTPError, OSError, HFValidationError) as error:
            raise PullError(_reason(error, self._endpoint, model_id, commit)) from error


def _reason(error: Exception, endpoint: str, model_id: ModelId, revision: str) -> str:
    page = f"{endpoint}/{model_id}"
    cause = _disconnection(error)
    reason = f"cannot fetch {model_id}: {error}"
    if cause:
        reason = (
            f"cannot reach {endpoint} ({cause}). What has arrived whole is kept; run this again "
            "when there is a network. Without one, copy the model's folder here from another "
            f"machine and run\n    limner-node models add FOLDER --id {model_id}"
        )
    match error:
        case GatedRepoError():
            reason = (
                f"{model_id} is given to those only who accepted its terms: do so on {page}, and "
                "set HF_TOKEN to a token of your account"
            )
        case RevisionNotFoundError():
            reason = f"{model_id} has no revision {revision}; see {page}"
        case RepositoryNotFoundError():
            reason = (
                f"{endpoint} has no {model_id}, or shows it to its owners only: check the id's "
                "letters and capitals, or set HF_TOKEN to a token that may read it"
            )
        case RemoteEntryNotFoundError():
            reason = f"{model_id} has lost a file meanwhile; pull it again"
        case HFValidationError():
            reason = f"{model_id!r} is no id of a model; write organisation/name"
        case HfHubHTTPError() if error.response.status_code in _SECRET:
            reason = f"{endpoint} refuses; set HF_TOKEN to a valid token"
        case HfHubHTTPError():
            reason = f"{endpoint} answered {error.response.status_code}; try again later"
        case _:
            pass
    return reason


def _components(index: Path) -> dict[str, str]:
    try:
        content = orjson.loads(index.read_bytes())
    except orjson.JSONDecodeError:
        content = None
    if not isinstance(content, dict):
        raise PullError(f"its {INDEX} is not a JSON object")
    return {
        name: entry[1]
        for name, entry in content.items()
        if isinstance(entry, list) and len(entry) == 2 and isinstance(entry[1], str)  # noqa: PLR2004
    }


def _disconnection(error: BaseException | None) -> str:
    """Return the network's fault behind an error, "" if there is none."""
    while error is not None:
        if isinstance(error, OfflineModeIsEnabled):
            return "HF_HUB_OFFLINE is set; unset it"
        if isinstance(error, httpx2.TransportError):
            return str(error) or type(error).__name__
        if isinstance(error, RevisionResolutionError | LocalEntryNotFoundError) and (
            error.__cause__ is None
        ):
            return "no connection"
        error = error.__cause__
    return ""


def _literally(path: str) -> str:
    """A pattern that matches just this path."""
    return "".join(f"[{sign}]" if sign in "*?[" else sign for sign in path)
