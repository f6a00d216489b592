"""Which contracts a network name stands for."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Final

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError

from network.chain.settings import OFFCHAIN, ChainSettings
from network.errors import ConfigError
from network.identity import parse_address
from network.units import Address

_NETWORK: Final = "chain.network"
_MOST_FILE_BYTES: Final = 64 * 1024


@dataclass(frozen=True, slots=True)
class Profile:
    """One deployment of Livepeer's contracts. All but the AI registry follow from the Controller."""

    name: str
    chain_id: int
    controller: Address
    ai_service_registry: Address
    #: Used where the operator names no endpoint.
    rpc: tuple[str, ...] = ()


ARBITRUM_ONE: Final = Profile(
    name="arbitrum-one",
    chain_id=42161,
    controller=parse_address("0xD8E8328501E9645d16Cf49539efC04f734606ee4"),
    ai_service_registry=parse_address("0x04C0b249740175999E5BF5c9ac1dA92431EF34C5"),
)
_BUILT_IN: Final = {ARBITRUM_ONE.name: ARBITRUM_ONE}


def profile_of(network: str) -> Profile | None:
    """What `[chain] network` stands for; None off-chain.

    Reads a file where it is a path: call it before the event loop runs, or on a thread. Raises
    ConfigError.
    """
    if network == OFFCHAIN:
        return None
    return _BUILT_IN.get(network) or _read(network)


def endpoints_of(settings: ChainSettings, profile: Profile) -> tuple[str, ...]:
    """The RPC URLs in order of preference. Raises ConfigError if there are none."""
    urls = tuple(url.get_secret_value() for url in settings.rpc) or profile.rpc
    if not urls:
        raise ConfigError(
            "chain.rpc", f"name at least one RPC endpoint for {profile.name}: rpc = [URL]"
        )
    for position, url in enumerate(urls):
        if not url.startswith(("http://", "https://")):
            # The URL itself may hold a key, so only its position is told.
            raise ConfigError(f"chain.rpc.{position}", "must start with http:// or https://")
    return urls


def _address(value: object) -> Address:
    return parse_address(value if isinstance(value, str) else repr(value))


class _NetworkFile(BaseModel):
    """`network.json` of a devnet; more fields may stand in it."""

    model_config = ConfigDict(strict=True, arbitrary_types_allowed=True)

    chain_id: Annotated[int, Field(gt=0, lt=2**53)]
    controller: Annotated[Address, BeforeValidator(_address)]
    ai_service_registry: Annotated[Address, BeforeValidator(_address)]
    rpc: str


def _read(network: str) -> Profile:
    path = Path(network).expanduser()
    try:
        with path.open("rb") as file:
            text = file.read(_MOST_FILE_BYTES)
    except FileNotFoundError:
        known = ", ".join((OFFCHAIN, *_BUILT_IN))
        raise ConfigError(
            _NETWORK, f"{network!r} is neither a known network ({known}) nor a file"
        ) from None
    except (OSError, ValueError) as error:
        raise ConfigError(_NETWORK, f"cannot read {network!r}: {error}") from error
    try:
        found = _NetworkFile.model_validate_json(text)
    except ValidationError as error:
        fault = error.errors(include_url=False)[0]
        where = ".".join(str(part) for part in fault["loc"])
        what = fault["msg"].removeprefix("Value error, ")
        problem = f"{where}: {what}" if where else what
        raise ConfigError(_NETWORK, f"{path} is not a network file: {problem}") from None
    return Profile(
        name=str(path),
        chain_id=found.chain_id,
        controller=found.controller,
        ai_service_registry=found.ai_service_registry,
        rpc=(found.rpc,),
    )
