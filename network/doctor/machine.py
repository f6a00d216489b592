"""The machine under a role: room on its disks, its ports and who holds them, certificate files."""

import asyncio
import errno
import shutil
import socket
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Final

from cryptography import x509

from network.findings import Finding, fail, ok, warn

_MIB: Final = 2**20
_GIB: Final = 2**30
#: Below this a journal may fail any moment.
_LEAST_FREE: Final = 256 * _MIB
_SOON: Final = timedelta(days=14)
_PROC: Final = Path("/proc")
_LISTENING: Final = "0A"
_LOCAL_ADDRESS, _STATE, _INODE = 1, 3, 9


@dataclass(frozen=True, slots=True)
class Room:
    """A file system's bytes, as an unprivileged user has them."""

    path: Path
    total: int
    free: int


def room_at(path: Path) -> Room:
    """Return the room where `path` is or will be. Raises OSError."""
    there = path.absolute()
    while not there.exists() and there != there.parent:
        there = there.parent
    usage = shutil.disk_usage(there)
    return Room(path, usage.total, usage.free)


def judge_room(what: str, room: Room, wanted: int) -> Finding:
    """Say whether there is room for `wanted` more bytes, and a little besides."""
    detail = f"{_size(room.free)} of {_size(room.total)} free at {room.path}"
    if room.free < _LEAST_FREE:
        return fail(what, detail, "make room at once: nothing can be written down soon")
    if room.free < wanted:
        return warn(what, f"{detail}; {_size(wanted)} may be needed", "make room, or move it")
    return ok(what, detail)


@dataclass(frozen=True, slots=True)
class Port:
    """A port that a setting names: `problem` is why it cannot be listened on, "" if it can."""

    setting: str
    where: str
    problem: str
    #: "livepeer (pid 12)", as far as this user may see.
    holder: str = ""


async def look_at_port(setting: str, host: str, port: int) -> Port:
    """Try to listen there for a moment. Port 0 is always free."""
    return await asyncio.to_thread(_try, setting, host, port)


def judge_port(port: Port) -> Finding:
    """Say whether a role could start on its port."""
    if not port.problem:
        return ok(port.setting, f"{port.where} is free")
    if "livepeer" in port.holder.lower():
        return fail(
            port.setting,
            f"{port.where} is held by {port.holder}, a go-livepeer process",
            f"stop it, or give one of the two another port ({port.setting})",
        )
    by = f" by {port.holder}" if port.holder else ""
    return fail(
        port.setting,
        f"cannot listen on {port.where}: {port.problem}{by}",
        f"stop what holds it, or set another {port.setting}",
    )


def holder_of(port: int) -> str:
    """Return who listens on a TCP port of this machine; "" where Linux does not tell this user."""
    inodes = _listening_inodes(port)
    if not inodes:
        return ""
    targets = {f"socket:[{inode}]" for inode in inodes}
    for process in _PROC.glob("[0-9]*"):
        with suppress(OSError):
            if any(_link(handle) in targets for handle in (process / "fd").iterdir()):
                return f"{(process / 'comm').read_text().strip()} (pid {process.name})"
    return ""


def judge_certificate_file(path: Path, now: float) -> Finding:
    """Say whether a PEM certificate can be used. `now` in unix seconds. Reads the file."""
    what = "certificate"
    try:
        certificate = x509.load_pem_x509_certificate(path.read_bytes())
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or "it is no PEM certificate"
        return fail(what, f"cannot use {path}: {reason}", "put a readable one there")
    expires, moment = certificate.not_valid_after_utc, datetime.fromtimestamp(now, UTC)
    until = f"{expires:%Y-%m-%d}"
    if moment >= expires:
        return fail(what, f"{path} expired on {until}", "renew it")
    if moment < certificate.not_valid_before_utc:
        begins = certificate.not_valid_before_utc
        return fail(
            what, f"{path} is valid from {begins:%Y-%m-%d %H:%M} UTC on", "look at the clock"
        )
    if expires - moment < _SOON:
        return warn(what, f"{path} expires on {until}", "renew it")
    return ok(what, f"{path}, until {until}")


def _try(setting: str, host: str, port: int) -> Port:
    shown = f"{host} port {port}"
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
        family, kind, protocol, _, address = found[0]
        with socket.socket(family, kind, protocol) as sock:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            sock.bind(address)
            # Linux lets two sockets bind with SO_REUSEADDR as long as neither listens.
            sock.listen(1)
    except OSError as error:
        taken = error.errno == errno.EADDRINUSE
        problem = "it is taken" if taken else error.strerror or str(error)
        return Port(setting, shown, problem, holder_of(port) if taken else "")
    return Port(setting, shown, "")


def _listening_inodes(port: int) -> set[str]:
    inodes: set[str] = set()
    for table in ("tcp", "tcp6"):
        with suppress(OSError):
            for line in (_PROC / "net" / table).read_text().splitlines()[1:]:
                fields = line.split()
                local = int(fields[_LOCAL_ADDRESS].rpartition(":")[2], 16)
                if local == port and fields[_STATE] == _LISTENING:
                    inodes.add(fields[_INODE])
    return inodes


def _link(path: Path) -> str:
    try:
        return str(path.readlink())
    except OSError:
        return ""


def _size(count: int) -> str:
    if count >= _GIB:
        return f"{count / _GIB:.1f} GiB"
    return f"{count / _MIB:.0f} MiB"
