"""Whether a role's account can be opened, by its owner alone. Makes nothing."""

import asyncio
import os
from dataclasses import dataclass
from pathlib import Path

from network.errors import ConfigError
from network.findings import Finding, fail, ok, skip, warn
from network.identity import KeySigner, checksum
from network.keystore import open_keystore
from network.passphrase import PassphraseSources, find_passphrase
from network.runtime.secret_file import is_open_to_others

_KEYSTORE = "keystore"


@dataclass(frozen=True, slots=True)
class Account:
    """What was found of an account; `signer` is None where it cannot be opened."""

    findings: tuple[Finding, ...]
    signer: KeySigner | None = None


async def look_at_account(sources: PassphraseSources) -> Account:
    """Open the keystore, and see who else could read what opens it."""
    if not await asyncio.to_thread(_is_there, sources.keystore):
        return Account(
            (
                skip(
                    _KEYSTORE,
                    f"{sources.keystore} is not there yet; the first start makes an account",
                    "start it once, or bring an account: keystore import",
                ),
            )
        )
    modes = await asyncio.to_thread(_modes, sources)
    try:
        passphrase = await asyncio.to_thread(find_passphrase, sources)
        signer = await open_keystore(sources.keystore, passphrase)
    except ConfigError as error:
        advice = "see that this user may read it, and that the passphrase belongs to it"
        return Account((fail(_KEYSTORE, str(error), advice), *modes))
    opened = ok(_KEYSTORE, f"{checksum(signer.address)} opens")
    return Account((opened, *modes), signer)


def _modes(sources: PassphraseSources) -> tuple[Finding, ...]:
    files = [sources.keystore]
    if sources.file is not None:
        files.append(sources.file.expanduser())
    elif not sources.given:
        files.append(sources.made)
    exposed = [path for path in files if _is_exposed(path)]
    if not exposed:
        return (ok("secret files", "readable by their owner only"),)
    named = " ".join(str(path) for path in exposed)
    return (warn("secret files", f"others may read {named}", f"chmod 600 {named}"),)


def _is_there(path: Path) -> bool:
    try:
        return path.exists()
    except OSError:  # in a folder that this user may not enter: opening it tells why
        return True


def _is_exposed(path: Path) -> bool:
    try:
        return is_open_to_others(path)
    except OSError:
        return False


def judge_folder(folder: Path) -> Finding:
    """Say whether `folder` can be used, and by whom else. Reads the disk."""
    what = "data directory"
    if not _is_there(folder):
        return skip(what, f"{folder} is not there yet; the first start makes it")
    if not os.access(folder, os.W_OK | os.X_OK) or not folder.is_dir():
        return fail(
            what,
            f"this user cannot write into {folder}",
            "run as its owner, or name another by data_dir",
        )
    if folder.stat().st_mode & 0o077:
        return warn(what, f"{folder} is open to others", f"chmod 700 {folder}")
    return ok(what, str(folder))
