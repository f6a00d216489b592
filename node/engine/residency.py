"""Decides which models' weights are on the device, in host memory, or on disk only. Pure.

Weights on the device stay within a budget of bytes. What has to go from there goes to host memory,
a second tier with a budget of its own, and from there back to disk, both least recently used
first. A model in use never moves. Pinned models move only for one that could not otherwise be
held at all: beside all of them there would be no room for it.

On a CPU the device's memory is the host's: the second tier has no bytes, and what goes is dropped.
"""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import assert_never

from network.units import ModelId


class Tier(StrEnum):
    """Where a model's weights are."""

    DEVICE = "device"
    HOST = "host"
    DISK = "disk"


@dataclass(frozen=True, slots=True)
class Budget:
    """Bytes that weights may take. A `host` of 0 means that there is no second tier."""

    device: int
    host: int = 0


@dataclass(frozen=True, slots=True)
class Move:
    """Weights to bring to another tier, in the order in which moves are given."""

    model_id: ModelId
    to: Tier


class Residency:
    """The plan that its owner carries out: every returned move has been taken into it already."""

    def __init__(self, budget: Budget, pinned: Collection[ModelId] = ()) -> None:
        self._budget = budget
        self._pinned = frozenset(pinned)
        # model -> its bytes, least recently used first
        self._device: dict[ModelId, int] = {}
        self._host: dict[ModelId, int] = {}

    def tier(self, model_id: ModelId) -> Tier:
        """Return where a model is."""
        if model_id in self._device:
            return Tier.DEVICE
        return Tier.HOST if model_id in self._host else Tier.DISK

    def held(self, tier: Tier) -> dict[ModelId, int]:
        """Return the models of a tier with their bytes, least recently used first."""
        match tier:
            case Tier.DEVICE:
                return dict(self._device)
            case Tier.HOST:
                return dict(self._host)
            case Tier.DISK:
                return {}
            case _:
                assert_never(tier)

    def touch(self, model_id: ModelId) -> None:
        """Note that a model on the device is used now."""
        self._device[model_id] = self._device.pop(model_id)

    def place(
        self, model_id: ModelId, size: int, in_use: Collection[ModelId]
    ) -> tuple[Move, ...] | None:
        """Give a model of `size` bytes its room on the device; return what has to go first.

        None: models in use are in its way, and nothing was changed. A model larger than the whole
        budget gets the device alone.
        """
        if model_id in self._device:
            self.touch(model_id)
            return ()
        leaving, fits = self._leaving(size, in_use)
        if not fits and any(other in in_use for other in self._device):
            return None
        self._host.pop(model_id, None)
        moves = self._move_out(leaving)
        self._device[model_id] = size
        return moves

    def in_the_way(self, size: int) -> frozenset[ModelId]:
        """Return what must leave the device before `size` bytes more have room, used or not."""
        leaving, _ = self._leaving(size, ())
        return frozenset(leaving)

    def resize(self, model_id: ModelId, size: int) -> None:
        """Correct a model's bytes, once they are measured; `shrink` follows."""
        for held in (self._device, self._host):
            if model_id in held:
                held[model_id] = size

    def shrink(self, in_use: Collection[ModelId]) -> tuple[Move, ...]:
        """Return what has to go for the device to be within its budget again, if anything."""
        if sum(self._device.values()) <= self._budget.device:
            return ()
        # What is pinned goes last, but it goes: the budget is what the operator grants.
        idle = [other for other in self._device if other not in in_use]
        order = sorted(idle, key=lambda other: other in self._pinned)
        leaving: list[ModelId] = []
        for other in order:
            kept = [size for held, size in self._device.items() if held not in leaving]
            if sum(kept) <= self._budget.device or len(kept) == 1:
                break
            leaving.append(other)
        return self._move_out(leaving)

    def spare(self, model_id: ModelId, in_use: Collection[ModelId]) -> tuple[Move, ...]:
        """Clear the device of all that is idle beside one model, whose work lacks memory."""
        idle = [other for other in self._device if other != model_id and other not in in_use]
        return self._move_out(idle)

    def drop(self, model_id: ModelId) -> None:
        """Take note that a model is in no memory any more."""
        self._device.pop(model_id, None)
        self._host.pop(model_id, None)

    def _leaving(self, size: int, in_use: Collection[ModelId]) -> tuple[list[ModelId], bool]:
        """Return which idle models would leave for `size` bytes, and whether that is enough."""
        pinned = sum(held for other, held in self._device.items() if other in self._pinned)
        idle = [other for other in self._device if other not in in_use]
        order = [other for other in idle if other not in self._pinned]
        if size + pinned > self._budget.device:
            order += [other for other in idle if other in self._pinned]
        excess = size + sum(self._device.values()) - self._budget.device
        leaving = []
        for other in order:
            if excess <= 0:
                break
            leaving.append(other)
            excess -= self._device[other]
        return leaving, excess <= 0

    def _move_out(self, leaving: Sequence[ModelId]) -> tuple[Move, ...]:
        before = tuple(self._host)
        for model_id in leaving:
            size = self._device.pop(model_id)
            if size <= self._budget.host:
                while size + sum(self._host.values()) > self._budget.host:
                    del self._host[next(iter(self._host))]
                self._host[model_id] = size
        # First what makes room; and nothing is brought to where it would not stay.
        dropped = [Move(other, Tier.DISK) for other in before if other not in self._host]
        return (*dropped, *(Move(model_id, self.tier(model_id)) for model_id in leaving))
