"""The LoRAs that a node's operator allows, and what may be asked of which model."""

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from network.errors import ConfigError
from network.units import ModelId
from node.config.lora_file import LoraBounds, LoraFileError, inspect_lora
from node.config.settings import LoraSettings, NodeSettings

_BUILTIN: Final = Path(__file__).resolve().parents[1] / "builtin" / "loras"
_SUFFIX: Final = ".safetensors"
_LISTED: Final = 20
_MIB: Final = 2**20


@dataclass(frozen=True, slots=True)
class ServedLora:
    """A LoRA with its file. `models` are those it is for; none means any model."""

    lora_id: str
    path: Path
    models: frozenset[ModelId] = frozenset()

    def suits(self, model_id: ModelId) -> bool:
        """Tell whether the operator offers this LoRA with that model."""
        return not self.models or model_id in self.models


def builtin_loras(models: Collection[ModelId]) -> tuple[ServedLora, ...]:
    """Return the LoRAs that come with the built-in model, which is served as `models`."""
    return tuple(
        ServedLora(f"limner/{path.stem}", path, frozenset(models))
        for path in sorted(_BUILTIN.glob(f"*{_SUFFIX}"))
    )


def bounds_of(settings: NodeSettings) -> LoraBounds:
    """Return the bounds of a LoRA's file."""
    return LoraBounds(settings.engine.max_lora_mib * _MIB, settings.engine.max_lora_rank)


def allowed_loras(settings: NodeSettings, models: Collection[ModelId]) -> tuple[ServedLora, ...]:
    """Return the LoRAs that the settings list, each with a file that may be used.

    Raises ConfigError for one that is not there, is no LoRA, is too large, or is for a model
    that is not among `models`; blocks.
    """
    root = settings.loras_dir or settings.data_dir / "loras"
    bounds = bounds_of(settings)
    loras: dict[str, ServedLora] = {}
    for listed in settings.loras:
        if listed.id in loras:
            raise ConfigError("loras", f"{listed.id} is listed twice")
        strange = [name for name in listed.models if name not in models]
        if strange:
            raise ConfigError("loras.models", f"{listed.id}: {strange[0]} is not served here")
        path = _file_of(listed, root)
        try:
            inspect_lora(path, bounds)
        except LoraFileError as error:
            raise ConfigError("loras", f"{listed.id}: {path} {error}") from None
        loras[listed.id] = ServedLora(listed.id, path, frozenset(map(ModelId, listed.models)))
    return tuple(loras.values())


def refusal(loras: Collection[ServedLora], model_id: ModelId, asked: Sequence[str]) -> str | None:
    """Say why a model's request may not have the LoRAs `asked`; None when it may."""
    known = {lora.lora_id: lora for lora in loras}
    for name in asked:
        lora = known.get(name)
        if lora is not None and lora.suits(model_id):
            continue
        if lora is not None:
            return (
                f"LoRa incompatible with base model: '{name}' is for "
                f"{_listed(lora.models)}, not for '{model_id}'."
            )
        offered = [lora.lora_id for lora in loras if lora.suits(model_id)]
        return (
            f"LoRa '{name}' is not offered here. Available for '{model_id}': {_listed(offered)}."
        )
    return None


def _listed(names: Collection[str]) -> str:
    return ", ".join(sorted(names)[:_LISTED]) or "none"


def _file_of(listed: LoraSettings, root: Path) -> Path:
    if listed.path is not None:
        return _single_file(listed.id, listed.path)
    tried = list(_candidates(root, listed.id))
    for path in tried:
        if path.exists():
            return _single_file(listed.id, path)
    raise ConfigError(
        "loras_dir",
        f"{listed.id} is not in {root}. Put its file at {tried[1]}, download it with\n"
        f"    hf download {listed.id} --include '*{_SUFFIX}' --local-dir {root / listed.id}\n"
        "or set the LoRA's path, or loras_dir",
    )


def _candidates(root: Path, lora_id: str) -> Iterator[Path]:
    """A folder, a file, or the cache layout of `hf download`."""
    if ".." in lora_id.split("/") or lora_id.startswith("/"):
        raise ConfigError("loras", f"{lora_id!r} is not a LoRA's id")
    yield root / lora_id
    yield root / f"{lora_id}{_SUFFIX}"
    cached = root / f"models--{lora_id.replace('/', '--')}"
    try:
        revision = (cached / "refs" / "main").read_text().strip()
    except (OSError, UnicodeDecodeError):
        return
    yield cached / "snapshots" / revision


def _single_file(lora_id: str, path: Path) -> Path:
    """Return the file, or the only safetensors file of a folder."""
    if not path.is_dir():
        if path.suffix != _SUFFIX:
            raise ConfigError(
                "loras.path", f"{lora_id}: {path} is no {_SUFFIX} file, and nothing else is read"
            )
        return path.resolve()
    files = sorted(path.glob(f"*{_SUFFIX}"))
    if len(files) != 1:
        found = ", ".join(file.name for file in files) or "none"
        raise ConfigError(
            "loras.path",
            f"{lora_id}: {path} must hold one {_SUFFIX} file, and has: {found}. Set the LoRA's path "
            "to the file",
        )
    return files[0].resolve()
