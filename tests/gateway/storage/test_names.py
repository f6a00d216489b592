"""Names of images."""

from hypothesis import given
from hypothesis import strategies as st

from gateway.storage.names import draw_name, parse_path


def test_a_name_comes_back_out_of_its_path() -> None:
    name = draw_name("0123456789abcdef")
    assert parse_path(name.path) == name


def test_names_are_long_and_never_repeat() -> None:
    names = {draw_name("r").name for _ in range(1000)}
    assert len(names) == 1000
    assert min(map(len, names)) == 32


@given(st.text(max_size=80) | st.text("./%\\stream-a0", max_size=40).map("/stream/".__add__))
def test_no_path_leads_out_of_the_store(path: str) -> None:
    name = parse_path(path)
    if name is not None:
        assert name.path == path
        assert not set(name.request + name.name) & set("./\\%\0")
