"""Whether a node runs on this data directory, what it says of itself, and whether its ports are free."""

import asyncio
import fcntl
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

import aiohttp
import orjson

from network.doctor.machine import judge_port, look_at_port
from network.findings import Finding, fail, ok, warn
from node.config.settings import NodeSettings

_ADMIN_SECONDS: Final = 3.0
_LARGEST_STATUS: Final = 4 * 2**20
_ADMIN: Final = "admin_listen"


@dataclass(frozen=True, slots=True)
class Standing:
    """A node of this data directory. `status` is None where its admin port does not answer."""

    is_running: bool
    service_uri: str = ""
    address: str = ""
    version: str = ""
    is_ready: bool = False
    status: str | None = None


async def look_at_node(settings: NodeSettings) -> Standing:
    """Tell whether a node holds the data directory, and ask it who it is."""
    if not await asyncio.to_thread(_is_locked, settings.data_dir):
        return Standing(is_running=False)
    told = await _ask(settings.admin_listen)
    if told is None:
        return Standing(is_running=True)
    return Standing(
        is_running=True,
        service_uri=str(told.get("service_uri", "")),
        address=str(told.get("address", "")),
        version=str(told.get("version", "")),
        is_ready=told.get("ready") is True,
        status=str(told.get("status", "")),
    )


async def look_at_ports(settings: NodeSettings, standing: Standing) -> tuple[Finding, ...]:
    """Judge the two ports: held by this node, or free for it."""
    if standing.is_running:
        return (judge_standing(standing, settings.admin_listen),)
    listen = urlsplit(settings.listen)
    host, _, port = settings.admin_listen.rpartition(":")
    looks = await asyncio.gather(
        look_at_port("listen", listen.hostname or "", listen.port or 0),
        look_at_port(_ADMIN, host.strip("[]"), int(port)),
    )
    return tuple(judge_port(one) for one in looks)


def judge_standing(standing: Standing, admin_listen: str) -> Finding:
    """Say how the node that runs is."""
    what = "running node"
    if standing.status is None:
        return fail(
            what,
            f"a node holds the data directory, and does not answer on {admin_listen}",
            "give the doctor the settings that the node runs with; if it hangs, restart it",
        )
    named = f"limner-node {standing.version} at {standing.service_uri}"
    if standing.status == "OK" and standing.is_ready:
        return ok(what, f"{named} is ready")
    if standing.status == "ERROR":
        return fail(what, f"{named} cannot make images", "its log says why")
    return warn(what, f"{named} is {standing.status.lower()}", "wait until its models are loaded")


def _is_locked(data_dir: Path) -> bool:
    try:
        handle = os.open(data_dir / "lock", os.O_RDWR)
    except OSError:
        return False
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return True
    finally:
        os.close(handle)
    return False


async def _ask(admin_listen: str) -> dict[str, object] | None:
    timeout = aiohttp.ClientTimeout(total=_ADMIN_SECONDS)
    try:
        async with (
            aiohttp.ClientSession(timeout=timeout) as session,
            session.get(f"http://{admin_listen}/status", allow_redirects=False) as response,
        ):
            body = await response.content.read(_LARGEST_STATUS)
            while more := await response.content.readany():
                body += more
                if len(body) > _LARGEST_STATUS:
                    return None
            told = orjson.loads(body)
    except (aiohttp.ClientError, TimeoutError, OSError, ValueError):
        return None
    return told if isinstance(told, dict) else None
