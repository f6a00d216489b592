"""What the image store has on disk, as another program would find it."""

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
