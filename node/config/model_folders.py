"""Where a model's files are: in `models_dir`, in the Hugging Face cache, or with the node itself.

Two layouts are read: `<folder>/<organisation>/<name>`, and the cache's
`<folder>/models--<organisation>--<name>/snapshots/<commit>`, which Livepeer's `aiModelsDir` has too.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal

from network.errors import ConfigError
from network.units import ModelId

BUILTIN_MODEL: Final = ModelId("limner/shapes")
BUILTIN_FOLDER: Final = Path(__file__).resolve().parents[1] / "builtin" / "shapes"
INDEX: Final = "model_index.json"
MAIN: Final = "main"

Source = Literal["built in", "path", "models_dir", "hub cache"]

_CACHED: Final = "models--"
_COMMIT: Final = re.compile("[0-9a-f]{40}")


@dataclass(frozen=True, slots=True)
class Root:
    """A folder of models."""

    path: Path
    source: Source


@dataclass(frozen=True, slots=True)
class Place:
    """A model's folder. `revision` is the commit, where the cache layout tells one."""

    model_id: ModelId
    path: Path
    source: Source
    revision: str | None = None


def hub_cache(environment: Mapping[str, str]) -> Path:
    """Return Hugging Face's cache of models, by the variables that its own library reads."""
    if named := environment.get("HF_HUB_CACHE") or environment.get("HUGGINGFACE_HUB_CACHE"):
        return Path(named).expanduser()
    home = environment.get("HF_HOME")
    if home is None:
        home = f"{environment.get('XDG_CACHE_HOME') or '~/.cache'}/huggingface"
    return Path(home).expanduser() / "hub"


def roots(models_dir: Path, environment: Mapping[str, str]) -> tuple[Root, ...]:
    """Return the folders to look in, the operator's own first."""
    return (Root(models_dir, "models_dir"), Root(hub_cache(environment), "hub cache"))


def locate(model_id: ModelId, revision: str, where: Sequence[Root]) -> Place | None:
    """Find a model; None when it is in none of these folders. Blocks.

    `revision` is a branch, a tag or a commit; a plain folder has just one, called "main".
    Raises ConfigError for what is no id.
    """
    check_id(model_id)
    if model_id == BUILTIN_MODEL:
        return Place(model_id, BUILTIN_FOLDER, "built in")
    for root in where:
        if place := _in_root(model_id, revision, root):
            return place
    return None


def scan(where: Sequence[Root]) -> Iterator[Place]:
    """Yield every model in these folders once, by the revision called "main" or the only one."""
    seen: set[ModelId] = set()
    for root in where:
        for model_id in sorted(_ids(root.path)):
            if model_id in seen or model_id == BUILTIN_MODEL:
                continue
            if place := _in_root(model_id, MAIN, root):
                seen.add(model_id)
                yield place


def id_of_cached(path: Path) -> ModelId | None:
    """Return the id that a folder in the cache layout belongs to; None for any other folder."""
    for folder in (path, *path.parents):
        if folder.name.startswith(_CACHED):
            return ModelId(folder.name.removeprefix(_CACHED).replace("--", "/"))
    return None


def check_id(model_id: str) -> None:
    """Raise ConfigError for an id that would lead out of its folder."""
    if ".." in model_id.split("/") or model_id.startswith("/"):
        raise ConfigError("models", f"{model_id!r} is not a model id")


def cached_folder(model_id: ModelId) -> str:
    """Return the name of a model's folder in the cache layout."""
    return f"{_CACHED}{model_id.replace('/', '--')}"


def _in_root(model_id: ModelId, revision: str, root: Root) -> Place | None:
    plain = root.path / model_id
    if revision == MAIN and (plain / INDEX).is_file():
        return Place(model_id, plain.resolve(), root.source)
    cached = root.path / cached_folder(model_id)
    commit = _commit(cached, revision)
    if commit is None:
        return None
    snapshot = cached / "snapshots" / commit
    if not (snapshot / INDEX).is_file():
        return None
    return Place(model_id, snapshot.absolute(), root.source, commit)


def _commit(cached: Path, revision: str) -> str | None:
    if _COMMIT.fullmatch(revision):
        return revision
    if ".." in revision.split("/"):
        raise ConfigError("models.revision", f"{revision!r} is not a revision")
    try:
        return (cached / "refs" / revision).read_text().strip()
    except (OSError, UnicodeDecodeError):
        pass
    # Copied from another machine without its refs, one snapshot leaves no doubt.
    snapshots = _folders(cached / "snapshots") if revision == MAIN else []
    return snapshots[0].name if len(snapshots) == 1 else None


def _ids(root: Path) -> Iterator[ModelId]:
    for folder in _folders(root):
        if folder.name.startswith(_CACHED):
            yield ModelId(folder.name.removeprefix(_CACHED).replace("--", "/"))
            continue
        if (folder / INDEX).is_file():
            yield ModelId(folder.name)
        for inner in _folders(folder):
            if (inner / INDEX).is_file():
                yield ModelId(f"{folder.name}/{inner.name}")


def _folders(path: Path) -> list[Path]:
    try:
        return sorted(entry for entry in path.iterdir() if entry.is_dir())
    except OSError:
        return []
