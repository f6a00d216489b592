"""What the image store has on disk, as another program would find it."""

import os
from contextlib import suppress
from pathlib import Path

from gateway.storage.records import parse_head


def segments(folder: Path) -> list[Path]:
    """Every segment file below `folder`, oldest first."""
    return sorted(folder.rglob("*.segment"), key=lambda file: int(file.stem))


def stored_images(folder: Path) -> dict[str, bytes]:
    """The images in the segments below `folder`, by `<request>/<name>.<kind>`, oldest first."""
    found = {}
    for file in segments(folder):
        content = file.read_bytes()
        position = 0
        while (head := parse_head(content, position)) is not None:
            start = position + head.length
            position = start + head.size
            if position > len(content):  # on its way
                break
            found[head.name.path.removeprefix("/stream/")] = content[start:position]
    return found


def read_below(folder: Path) -> list[str]:
    """Files that this process has open to read them."""
    found = []
    for link in Path("/proc/self/fd").iterdir():
        with suppress(OSError):
            flags = int((link.parent.parent / "fdinfo" / link.name).read_text().split()[3], 8)
            if (
                str(link.readlink()).startswith(str(folder))
                and flags & os.O_ACCMODE == os.O_RDONLY
            ):
                found.append(str(link.readlink()))
    return found
