"""What a runner is told by flags, files and the ai-runner's variables, and what it refuses."""

import stat
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import orjson
import pytest

from network.errors import ConfigError
from network.runtime.settings import load
from network.units import ModelId
from node.config.catalogue import BUILTIN_MODEL, ServedModel
from node.config.settings import ENVIRONMENT_PREFIX, ContainerSettings, NodeSettings
from node.container.announcement import ai_models_entries, needs_host, reachable_url
from node.container.environment import runner_environment, with_models
from node.container.token import Token, check_exposure, open_token

PUBLIC = "0.0.0.0:8000"


def told(environment: Mapping[str, str], *named: str, **values: Any) -> NodeSettings:
    taken = runner_environment(environment)
    settings = load(NodeSettings, None, ENVIRONMENT_PREFIX, values, taken)
    return with_models(settings, named, taken)


def container(**values: Any) -> ContainerSettings:
    return ContainerSettings.model_validate(values)


def test_the_ai_runners_variables_are_understood() -> None:
    environment = {
        "PIPELINE": "text-to-image",
        "MODEL_ID": "stabilityai/sdxl-turbo",
        "MODEL_DIR": "/models",
        "AUTH_TOKEN": "secret-of-the-image",
        "VERSION": "0.14.1",
        "HOST": "a-machine",
        "PORT": "99",
    }
    settings = told(environment)
    assert [model.id for model in settings.models] == ["stabilityai/sdxl-turbo"]
    assert settings.models_dir == Path("/models")
    assert settings.container.token == "secret-of-the-image"
    assert settings.container.version == "0.14.1"
    assert settings.container.listen == "127.0.0.1:8000"
    assert "secret-of-the-image" not in repr(settings)


def test_an_empty_variable_is_none_and_our_own_win() -> None:
    settings = told({"AUTH_TOKEN": "", "MODEL_ID": "", "PIPELINE": ""})
    assert (settings.container.token, settings.models) == ("", ())
    both = {"AUTH_TOKEN": "theirs", "LIMNER_NODE__CONTAINER__TOKEN": "ours"}
    assert told(both).container.token == "ours"


def test_another_pipeline_is_refused() -> None:
    with pytest.raises(ConfigError, match="PIPELINE: is 'image-to-image'"):
        told({"PIPELINE": "image-to-image"})


def test_flags_name_the_models_before_the_variable_and_that_before_the_settings() -> None:
    models = [{"id": "a/b", "capacity": 9}, {"id": "c/d"}]
    assert [model.id for model in told({}, models=models).models] == ["a/b", "c/d"]
    (one,) = told({"MODEL_ID": "a/b"}, models=models).models
    assert (one.id, one.capacity) == ("a/b", 9)
    named = told({"MODEL_ID": "c/d"}, "e/f", "a/b", "e/f", models=models, ai_models="/list.json")
    assert [(model.id, model.capacity) for model in named.models] == [("e/f", 4), ("a/b", 9)]
    assert named.ai_models is None
    with pytest.raises(ConfigError, match="is not a model id"):
        told({}, "no id")


@pytest.mark.parametrize(
    ("values", "token", "is_allowed"),
    [
        ({}, Token(), True),
        ({"listen": "localhost:1"}, Token(), True),
        ({"listen": "[::1]:1"}, Token(), True),
        ({"listen": PUBLIC}, Token(), False),
        ({"listen": "192.168.1.4:8000"}, Token(), False),
        ({"listen": "[::]:8000"}, Token(), False),
        ({"listen": PUBLIC}, Token("secret"), True),
        ({"listen": PUBLIC, "open": True}, Token(), True),
    ],
)
def test_a_public_address_needs_a_token_or_the_word_open(
    values: dict[str, Any], token: Token, *, is_allowed: bool
) -> None:
    if is_allowed:
        check_exposure(container(**values), token)
        return
    with pytest.raises(ConfigError, match=r"--token-file FILE makes one.* --open"):
        check_exposure(container(**values), token)


def test_a_token_file_is_made_once_for_its_owner_only_and_read_afterwards(
    tmp_path: Path,
) -> None:
    path = tmp_path / "new" / "token"
    made = open_token(container(token_file=path))
    assert made.is_new
    assert len(made.value) >= 43
    assert path.read_text() == f"{made.value}\n"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    again = open_token(container(token_file=path))
    assert (again.value, again.is_new) == (made.value, False)
    assert made.value not in repr(made)
    assert made.value != open_token(container(token_file=tmp_path / "other")).value


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "is empty"),
        (b"  \n", "is empty"),
        (b"two words", "visible ASCII"),
        (b"two\nlines", "visible ASCII"),
        (b"\xff\xfe", "visible ASCII"),
        (b"x" * 2000, "at most 1024"),
    ],
)
def test_a_token_file_without_a_token_is_refused_without_quoting_it(
    tmp_path: Path, content: bytes, words: str
) -> None:
    path = tmp_path / "token"
    path.write_bytes(content)
    with pytest.raises(ConfigError, match=words) as raised:
        open_token(container(token_file=path))
    assert str(path) in str(raised.value)
    assert "two" not in str(raised.value)


def test_one_token_is_enough(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="keep one of the two"):
        open_token(container(token_file=tmp_path / "token", token="x"))
    assert not (tmp_path / "token").exists()
    with pytest.raises(ConfigError, match="cannot read"):
        open_token(container(token_file=tmp_path))


@pytest.mark.parametrize(
    ("shown", "expected"),
    [
        ("Bearer secret", True),
        ("bearer  secret ", True),
        ("Bearer secre", False),
        ("Bearer secrets", False),
        ("secret", False),
        ("Token secret", False),
        ("", False),
        (None, False),
        ("Bearer \udcff", False),
    ],
)
def test_a_token_opens_to_itself(shown: str | None, *, expected: bool) -> None:
    assert Token("secret").opens_to(shown) is expected
    assert Token().opens_to(shown)


@pytest.mark.parametrize(
    ("host", "configured", "expected"),
    [
        ("127.0.0.1", None, "http://127.0.0.1:8000"),
        ("::1", None, "http://[::1]:8000"),
        ("0.0.0.0", None, "http://THIS-MACHINE:8000"),  # noqa: S104
        ("::", None, "http://THIS-MACHINE:8000"),
        ("0.0.0.0", "http://gpu1.lan:8001", "http://gpu1.lan:8001"),  # noqa: S104
    ],
)
def test_the_url_for_go_livepeer_says_what_is_known(
    host: str, configured: str | None, expected: str
) -> None:
    url = reachable_url(host, 8000, configured)
    assert url == expected
    assert needs_host(url) == ("THIS-MACHINE" in expected)


def test_the_entries_hold_what_go_livepeer_reads_and_no_secret(tmp_path: Path) -> None:
    models = [
        ServedModel(BUILTIN_MODEL, tmp_path, settings_price(), capacity=4, warm=True),
        ServedModel(ModelId("a/b"), tmp_path, settings_price(), capacity=1, warm=False),
    ]
    url = "http://127.0.0.1:8000"
    without = [orjson.loads(entry) for entry in ai_models_entries(models, url, Token())]
    assert without == [
        {
            "pipeline": "text-to-image",
            "model_id": model_id,
            "warm": warm,
            "capacity": capacity,
            "url": url,
        }
        for model_id, warm, capacity in ((BUILTIN_MODEL, True, 4), ("a/b", False, 1))
    ]
    (kept, _) = ai_models_entries(models, url, Token("secret", tmp_path / "token"))
    assert orjson.loads(kept)["token"] == f"<content of {tmp_path / 'token'}>"
    (given, _) = ai_models_entries(models, url, Token("secret"))
    assert "secret" not in given
    assert orjson.loads(given)["token"]


def settings_price() -> Any:
    return NodeSettings().price
