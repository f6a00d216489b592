"""What was measured on one device, kept on disk from one start to the next."""

import os
from collections import OrderedDict
from contextlib import suppress
from pathlib import Path
from typing import TypeVar

import msgspec

from node.engine.batch_cap import BatchCap
from node.engine.paces import Paces

_MOST_KINDS = 256  # kinds of steps remembered, least recently used out
_MOST_MACHINES = 16
_MOST_BYTES = 4 * 2**20  # a larger file is not ours
_Value = TypeVar("_Value")


class _Record(msgspec.Struct, frozen=True, omit_defaults=True):
    """What was learned of one kind of step: durations in seconds by group size."""

    seconds: dict[int, tuple[float, ...]]
    limit: int | None = None


class _File(msgspec.Struct):
    """Records, and efforts of all kinds of work, by machine; least recently used first."""

    machines: dict[str, dict[str, _Record]] = {}
    paces: dict[str, dict[str, tuple[float, ...]]] = {}


class BatchBook:
    """One cap for each kind of step: model, latent shape, guidance on or off.

    `paces` are the efforts of all kinds of work, which any thread may read and add to.
    """

    def __init__(
        self, path: Path | None, machine: str, most: int, *, on_gpu: bool = False
    ) -> None:
        """`machine` names what durations depend on: device, threads, libraries' versions.

        Without a path nothing is kept. A file that cannot be read counts as empty: everything in
        it can be measured again.
        """
        self._path = path
        self._machine = machine
        self._most = most
        self._caps: OrderedDict[str, BatchCap] = OrderedDict()
        file = self._read()
        self._saved = file.machines.get(machine, {})
        self._saved_paces = file.paces.get(machine, {})
        self.paces = Paces(self._saved_paces, on_gpu=on_gpu)
        for kind, record in self._saved.items():
            self._caps[kind] = BatchCap(most, record.seconds, record.limit)

    def cap(self, kind: str) -> BatchCap:
        """Return the cap for a kind of step, a new one at first."""
        found = self._caps.pop(kind, None) or BatchCap(self._most)
        self._caps[kind] = found
        if len(self._caps) > _MOST_KINDS:
            self._caps.popitem(last=False)
        return found

    def save(self) -> None:
        """Write down what was learned since the last time, if anything."""
        records = {
            kind: _Record(cap.seconds, cap.limit)
            for kind, cap in self._caps.items()
            if cap.seconds or cap.limit is not None
        }
        paces = self.paces.known()
        if self._path is None or (records == self._saved and paces == self._saved_paces):
            return
        self._saved, self._saved_paces = records, paces
        kept = self._read()
        kept.machines = _with_newest(kept.machines, self._machine, records)
        kept.paces = _with_newest(kept.paces, self._machine, paces)
        # Written beside and renamed: a worker may be killed at any moment. A full disk is no
        # reason to stop making images.
        beside = self._path.with_name(f"{self._path.name}.{os.getpid()}")
        with suppress(OSError):
            beside.write_bytes(msgspec.json.format(msgspec.json.encode(kept), indent=1))
            beside.replace(self._path)

    def _read(self) -> _File:
        if self._path is None:
            return _File()
        try:
            if self._path.stat().st_size > _MOST_BYTES:
                return _File()
            return msgspec.json.decode(self._path.read_bytes(), type=_File)
        except (OSError, msgspec.DecodeError, UnicodeDecodeError):
            return _File()


def _with_newest(kept: dict[str, _Value], machine: str, value: _Value) -> dict[str, _Value]:
    others = {name: known for name, known in kept.items() if name != machine}
    newest = list(others.items())[1 - _MOST_MACHINES :]
    return dict(newest) | {machine: value}
