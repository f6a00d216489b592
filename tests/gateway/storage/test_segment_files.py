"""Segment files on a real disk: what is written whole is found again, and nothing else."""

import resource
import shutil
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule
from typing_extensions import override

from gateway.storage import segment_files
from gateway.storage.names import ImageName, draw_name
from gateway.storage.records import head_of
from gateway.storage.segment_files import Image, SegmentFiles, file_of, look_through, open_image
from gateway.storage.segments import Bounds, Place, Segments
from gateway.storage.shelf import Held

MOST, SECONDS = 2000, 10.0

#: Images as orchestrators may make them: also such as look like a record of their own.
FORGED = head_of(ImageName("forged", "forged"), 5.0, 3) + b"pic"
images = st.one_of(st.integers(0, 3000).map(bytes), st.just(FORGED), st.just(FORGED * 20))


def files_over(root: Path, needed: Counter[int] | None = None, last: int = 0) -> SegmentFiles:
    segments = Segments(Bounds(MOST, SECONDS), last=last, needed=needed or {})
    return SegmentFiles(root, segments)


def content(root: Path, place: Place, size: int) -> bytes | None:
    found = open_image(root, place, size)
    assert not isinstance(found, int), "images of this size are read at once"
    return found


class Keeping(RuleBasedStateMachine):
    """A store's files through writes, removals and crashes."""

    def __init__(self) -> None:
        super().__init__()
        self.root = Path(tempfile.mkdtemp())
        self.files = files_over(self.root)
        self.now = 100.0
        #: All that is on disk, in its order, and what of it is still needed.
        self.written: dict[Place, Image] = {}
        self.needed: dict[Place, Image] = {}

    @override
    def teardown(self) -> None:
        self.files.close()
        shutil.rmtree(self.root)

    @rule(data=st.lists(images, min_size=1, max_size=4), seconds=st.floats(0, 6))
    def append(self, data: list[bytes], seconds: float) -> None:
        self.now += seconds
        batch = [Image(draw_name("request"), one, self.now) for one in data]
        for image, place in zip(batch, self.files.append(batch), strict=True):
            assert isinstance(place, Place)
            self.written[place] = self.needed[place] = image

    @rule(data=st.data())
    def leave(self, data: st.DataObject) -> None:
        oldest = sorted(self.needed)[: data.draw(st.integers(0, len(self.needed)))]
        for place in oldest:
            del self.needed[place]
        self.files.release(place.segment for place in oldest)
        left = {place.segment for place in self.needed}
        self.written = {p: image for p, image in self.written.items() if p.segment in left}

    @rule(data=st.data())
    def crash(self, data: st.DataObject) -> None:
        """In the midst of the last write: some bytes of the last file never came."""
        self.files.close()
        last = max((place.segment for place in self.written), default=0)
        if last:
            file = file_of(self.root, last)
            cut = data.draw(st.integers(0, file.stat().st_size))
            with file.open("r+b") as opened:
                opened.truncate(cut)
            self.written = {
                place: image
                for place, image in self.written.items()
                if place.segment < last or place.offset + len(image.data) <= cut
            }
        found = look_through(self.root, most=10_000)
        assert sorted(found.images, key=lambda one: one[2]) == [
            (image.name, Held(len(image.data), image.stored_at), place)
            for place, image in sorted(self.written.items())
        ]
        needed = Counter(place.segment for place in self.written)
        self.files = files_over(self.root, needed, found.last)
        self.files.remove(found.segments - needed.keys())
        self.needed = dict(self.written)

    @invariant()
    def what_is_needed_can_be_read(self) -> None:
        for place, image in self.needed.items():
            assert content(self.root, place, len(image.data)) == image.data

    @invariant()
    def no_file_is_there_that_is_not_needed(self) -> None:
        there = {int(file.stem) for file in self.root.iterdir()}
        assert there == {place.segment for place in self.needed}


TestKeeping = Keeping.TestCase


@contextmanager
def limited(which: int, most: int) -> Iterator[None]:
    """This process has less of something."""
    before = resource.getrlimit(which)
    resource.setrlimit(which, (most, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(which, before)


def three() -> list[Image]:
    return [
        Image(draw_name("request"), data, 1.0) for data in (b"a" * 500, b"b" * 900, b"c" * 100)
    ]


def test_a_disk_that_takes_a_part_keeps_what_fits_whole(tmp_path: Path) -> None:
    files, batch = files_over(tmp_path), three()
    with limited(resource.RLIMIT_FSIZE, 1000):
        first, second, third = files.append(batch)
    assert isinstance(second, OSError)
    assert isinstance(first, Place)
    assert isinstance(third, Place)
    (again,) = files.append(batch[1:2])
    assert isinstance(again, Place)
    files.close()
    found = look_through(tmp_path, most=10_000)
    assert [(name, place) for name, _, place in found.images] == [
        (batch[0].name, first),
        (batch[2].name, third),
        (batch[1].name, again),
    ]
    heads = sum(len(head_of(one.name, one.stored_at, len(one.data))) for one in batch)
    assert file_of(tmp_path, 1).stat().st_size == heads + 1500
    assert first.segment == third.segment == again.segment == 1


def test_a_part_that_cannot_be_taken_back_ends_its_segment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(descriptor: int, size: int) -> None:
        raise OSError(5, f"{descriptor} cannot be cut to {size}")

    files = files_over(tmp_path)
    batch = [
        Image(draw_name("request"), data, 1.0) for data in (b"a" * 500, b"b" * 999, b"c" * 100)
    ]
    (first,) = files.append(batch[:1])
    with monkeypatch.context() as patch, limited(resource.RLIMIT_FSIZE, 1000):
        patch.setattr("os.ftruncate", refuse)
        second, third = files.append(batch[1:])
    assert isinstance(second, OSError)
    assert file_of(tmp_path, 1).stat().st_size == 1000
    assert isinstance(first, Place)
    assert isinstance(third, Place)
    # By itself it was tried once more, at the beginning of another segment.
    assert (first.segment, third.segment) == (1, 3)
    assert not file_of(tmp_path, 2).exists()
    files.close()
    assert {name for name, _, _ in look_through(tmp_path, most=10_000).images} == {
        batch[0].name,
        batch[2].name,
    }


def test_a_disk_that_takes_nothing_leaves_no_files(tmp_path: Path) -> None:
    files = files_over(tmp_path)
    with limited(resource.RLIMIT_FSIZE, 0):
        for _ in range(3):
            assert all(isinstance(one, OSError) for one in files.append(three()))
    assert len(list(tmp_path.iterdir())) == 1
    files.close()
    assert not list(tmp_path.iterdir())


def test_many_images_are_written_together_and_found(tmp_path: Path) -> None:
    files = SegmentFiles(tmp_path, Segments(Bounds(2**20, SECONDS), last=0, needed={}))
    batch = [Image(draw_name("request"), b"%d" % number, 1.0) for number in range(2000)]
    places = files.append(batch)
    files.close()
    assert [file.name for file in tmp_path.iterdir()] == ["1.segment"]
    assert look_through(tmp_path, most=10_000).images == [
        (image.name, Held(len(image.data), 1.0), place)
        for image, place in zip(batch, places, strict=True)
    ]


def test_older_segments_are_not_read_once_there_are_enough_images(tmp_path: Path) -> None:
    files = SegmentFiles(tmp_path, Segments(Bounds(1, SECONDS), last=0, needed={}))
    batch = [Image(draw_name("request"), b"%d" % number, 1.0) for number in range(12)]
    files.append(batch)
    files.close()
    found = look_through(tmp_path, most=2)
    assert [name for name, _, _ in found.images] == [image.name for image in batch[-2:]]
    assert (found.segments, found.last) == (set(range(1, 13)), 12)


def unlink(file: Path) -> None:
    file.unlink()


def cut(file: Path) -> None:
    file.write_bytes(b"")


def write_to(file: Path) -> None:
    file.write_bytes(file.read_bytes() + b"more")


def remove_folder(file: Path) -> None:
    shutil.rmtree(file.parent)


@pytest.mark.parametrize("touch", [unlink, cut, write_to, remove_folder])
def test_a_segment_that_somebody_touched_takes_no_more_images(
    tmp_path: Path, touch: Callable[[Path], None]
) -> None:
    root = tmp_path / "images"
    root.mkdir()
    files = files_over(root)
    files.append(three()[:1])
    touch(file_of(root, 1))
    image = three()[2]
    (place,) = files.append([image])
    assert isinstance(place, Place)
    assert place.segment == 2
    assert content(root, place, 100) == image.data
    files.close()


def test_a_number_that_somebody_took_is_passed_over(tmp_path: Path) -> None:
    files = files_over(tmp_path)
    file_of(tmp_path, 1).write_bytes(b"not ours")
    (place,) = files.append(three()[:1])
    assert isinstance(place, Place)
    assert place.segment == 2
    assert file_of(tmp_path, 1).read_bytes() == b"not ours"
    files.close()


def test_one_sync_serves_everybody_who_was_written_before_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    synced: list[int] = []
    sync = segment_files._synced

    def counted(descriptor: int) -> None:
        synced.append(descriptor)
        sync(descriptor)

    monkeypatch.setattr(segment_files, "_synced", counted)
    files = files_over(tmp_path)
    places = [place for place in files.append(three()) if isinstance(place, Place)]
    assert len(places) == 3
    for place in places:
        files.sync([place])
    assert len(synced) == 1
    files.sync(place for place in files.append(three()) if isinstance(place, Place))
    assert len(synced) > 1
    files.close()


def test_what_a_sync_failed_for_is_never_called_safe(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(descriptor: int) -> None:
        raise OSError(5, f"{descriptor} is lost")

    files = files_over(tmp_path)
    (lost,) = files.append(three()[:1])
    assert isinstance(lost, Place)
    with monkeypatch.context() as patch:
        patch.setattr(segment_files, "_synced", refuse)
        with pytest.raises(OSError, match="is lost"):
            files.sync([lost])
    with pytest.raises(OSError, match="segment 1 could not be brought to the disk"):
        files.sync([lost])
    (later,) = files.append(three()[:1])
    assert isinstance(later, Place)
    files.sync([later])
    assert later.segment == 2
    files.close()
