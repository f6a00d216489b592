"""What the gateway knew, kept on disk: a restarted one serves at once, and with its sources out of reach.

A cache: it may be lost, and a file that cannot be read is no error. Offers are kept as the message that an
orchestrator would tell them in (net.OrchestratorInfo), with exact prices in `capabilities_prices` and
without what only its session is good for: token and ticket parameters.
"""

import asyncio
import os
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

import msgspec
import structlog

from gateway.discovery.listing import Admitted, Claim
from gateway.orchestrators.offer import Offer, read_offer
from network.capabilities import TEXT_TO_IMAGE
from network.errors import WireError
from network.identity import checksum, parse_address
from network.units import ModelId
from network.wire.codec import decode_orchestrator_info, encode_orchestrator_info
from network.wire.session import OrchestratorInfo, PriceInfo

_log = structlog.get_logger(__name__)

_VERSION: Final = 1
_LARGEST_FILE: Final = 16 * 2**20
#: Base64 in JSON makes a third more of them.
_LARGEST_OFFERS: Final = _LARGEST_FILE // 2
_LARGEST_OFFER: Final = 256 * 1024
#: Seconds. Prices and machines of last week tell little; addresses are kept as long as they are listed.
_LONGEST_AGE: Final = 7 * 86_400.0
#: Seconds. A clock may have been set back a little.
_SKEW: Final = 300.0


class _Entry(msgspec.Struct, array_like=True):
    uri: str
    #: None: whichever account it names.
    accounts: list[str] | None


class _KeptOffer(msgspec.Struct):
    uri: str
    #: Unix seconds.
    seen_at: float
    #: Seconds.
    round_trip: float
    info: bytes


class _File(msgspec.Struct):
    version: int
    lists: dict[str, list[_Entry]]
    offers: list[_KeptOffer]


@dataclass(frozen=True, slots=True)
class Known:
    """All that is kept. Offers are by nature as old as they are; `Offer.refreshed_at` tells."""

    #: By source, named with what it depends on: the list of another webhook is another list.
    lists: Mapping[str, Sequence[Claim]]
    offers: tuple[Offer, ...] = ()


NOTHING: Final = Known({})


class Memory:
    """The file. Written aside and put in place, so that it is whole or as it was before."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._writing = asyncio.Lock()
        self._has_failed = False

    async def load(self, now: float, monotonic: float) -> Known:
        """`now` in unix seconds, `monotonic` those of the clock that ages are told by."""
        try:
            content = await asyncio.to_thread(_read, self._path)
            return NOTHING if content is None else _known(content, now, monotonic)
        except (OSError, ValueError, msgspec.MsgspecError, WireError, RecursionError) as error:
            _log.warning(
                "remembered_orchestrators_ignored", file=str(self._path), problem=str(error)[:200]
            )
            return NOTHING

    async def save(
        self,
        lists: Mapping[str, Admitted],
        offers: Iterable[Offer],
        now: float,
        monotonic: float,
    ) -> None:
        """Keep this in the place of what was kept. A disk that refuses is logged once."""
        content = _content(lists, offers, now, monotonic)
        async with self._writing:
            try:
                await asyncio.to_thread(_write, self._path, content)
            except OSError as error:
                if not self._has_failed:
                    _log.warning(
                        "orchestrators_not_remembered",
                        file=str(self._path),
                        problem=error.strerror or str(error),
                    )
                self._has_failed = True
            else:
                self._has_failed = False


def _content(
    lists: Mapping[str, Admitted], offers: Iterable[Offer], now: float, monotonic: float
) -> bytes:
    kept: list[_KeptOffer] = []
    size = 0
    for offer in sorted(offers, key=lambda one: -one.refreshed_at):
        info = _encoded(offer)
        if info is None or size + len(info) > _LARGEST_OFFERS:
            continue
        size += len(info)
        seen_at = now - (monotonic - offer.refreshed_at)
        kept.append(_KeptOffer(offer.uri, seen_at, offer.round_trip, info))
    entries = {source: _entries(admitted) for source, admitted in lists.items()}
    return msgspec.json.encode(_File(_VERSION, entries, kept))


def _entries(admitted: Admitted) -> list[_Entry]:
    return [
        _Entry(uri, None if accounts is None else sorted(map(checksum, accounts)))
        for uri, accounts in admitted.accounts.items()
    ]


def _encoded(offer: Offer) -> bytes | None:
    """None for an offer that is not worth keeping."""
    if offer.problem or not offer.models:
        return None
    prices = tuple(
        PriceInfo(model.price, TEXT_TO_IMAGE, model_id)
        for model_id, model in offer.models.items()
        if model.price is not None
    )
    info = OrchestratorInfo(
        transcoder=offer.transcoder,
        address=offer.address or b"",
        price=None,
        prices=prices,
        capabilities=offer.capabilities,
        auth_token=None,
    )
    try:
        encoded = encode_orchestrator_info(info)
    except (WireError, ValueError):
        return None
    return encoded if len(encoded) <= _LARGEST_OFFER else None


def _known(content: bytes, now: float, monotonic: float) -> Known:
    """Raises ValueError, WireError and msgspec's errors for what was not written by `_content`."""
    file = msgspec.json.decode(content, type=_File)
    if file.version != _VERSION:
        raise ValueError(f"it has version {file.version}; this program writes {_VERSION}")
    lists = {
        source: [claim for entry in entries for claim in _claims(entry)]
        for source, entries in file.lists.items()
    }
    young = [one for one in file.offers if -_SKEW <= now - one.seen_at <= _LONGEST_AGE]
    offers = tuple(_offer(one, monotonic - max(now - one.seen_at, 0.0)) for one in young)
    return Known(lists, offers)


def _claims(entry: _Entry) -> list[Claim]:
    if entry.accounts is None:
        return [Claim(entry.uri)]
    return [Claim(entry.uri, parse_address(account)) for account in entry.accounts]


def _offer(kept: _KeptOffer, refreshed_at: float) -> Offer:
    info = decode_orchestrator_info(kept.info)
    offer = read_offer(
        kept.uri,
        info,
        replies={},
        floors={},
        refreshed_at=refreshed_at,
        round_trip=kept.round_trip,
    )
    prices = {one.constraint: one.price for one in info.prices}
    models = {
        ModelId(name): replace(model, price=prices.get(name), exact=True)
        for name, model in offer.models.items()
    }
    return replace(offer, models=models, is_remembered=True)


def _read(path: Path) -> bytes | None:
    try:
        with path.open("rb") as file:
            content = file.read(_LARGEST_FILE + 1)
    except FileNotFoundError:
        return None
    if len(content) > _LARGEST_FILE:
        raise ValueError(f"it is longer than {_LARGEST_FILE} bytes")
    return content


def _write(path: Path, content: bytes) -> None:
    # mkstemp: mode 0600, and a name that two programs on one directory do not share.
    handle, draft = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(content)
        Path(draft).replace(path)
    except BaseException:
        with suppress(OSError):
            Path(draft).unlink()
        raise
