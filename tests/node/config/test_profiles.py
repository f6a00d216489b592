"""What becomes of the steps and guidance that a client sends."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from network.errors import ConfigError
from network.runtime.settings import load
from node.config.catalogue import BUILTIN_MODEL, catalogue, profiles
from node.config.profiles import (
    CLIENT_GUIDANCE,
    CLIENT_STEPS,
    KNOWN,
    SCHEDULERS,
    Profile,
    Sampling,
    sampling,
)
from node.config.settings import NodeSettings
from node.engine.configured import model_specs
from node.engine.work import SchedulerChoice

STEPS = st.sampled_from([CLIENT_STEPS, 8]) | st.integers(1, 1000)
GUIDANCE = st.sampled_from([CLIENT_GUIDANCE, 0.0]) | st.floats(0, 30)
ASKED = st.builds(Sampling, STEPS, GUIDANCE)
PROFILES = st.builds(
    Profile,
    steps=st.none() | STEPS,
    guidance=st.none() | GUIDANCE,
    fixed=st.frozensets(st.sampled_from(["steps", "guidance"])),
)


def settings(**profile: Any) -> NodeSettings:
    return load(
        NodeSettings,
        None,
        "LIMNER_NODE__",
        {"models": [{"id": BUILTIN_MODEL, "profile": profile}]},
        {},
    )


@given(ASKED)
def test_without_a_profile_a_request_gets_what_it_asked(asked: Sampling) -> None:
    assert sampling(asked, None) == asked
    assert sampling(asked, Profile(size=(512, 512), scheduler="DDIMScheduler")) == asked


@given(ASKED, PROFILES)
def test_each_value_is_the_clients_or_the_profiles_and_settled_at_once(
    asked: Sampling, profile: Profile
) -> None:
    used = sampling(asked, profile)
    assert used.steps in {asked.steps, profile.steps}
    assert used.guidance in {asked.guidance, profile.guidance}
    assert sampling(used, profile) == used


@given(ASKED, PROFILES)
def test_what_a_client_chose_is_kept_unless_it_is_fixed(asked: Sampling, profile: Profile) -> None:
    used = sampling(asked, profile)
    if asked.steps != CLIENT_STEPS and "steps" not in profile.fixed:
        assert used.steps == asked.steps
    if asked.guidance != CLIENT_GUIDANCE and "guidance" not in profile.fixed:
        assert used.guidance == asked.guidance


@given(st.integers(1, 1000), st.floats(0, 30), ASKED)
def test_what_clients_send_unasked_is_the_profiles_and_the_fixed_always(
    steps: int, guidance: float, asked: Sampling
) -> None:
    own = Sampling(steps, guidance)
    profile = Profile(steps, guidance)
    assert sampling(Sampling(CLIENT_STEPS, CLIENT_GUIDANCE), profile) == own
    fixed = Profile(steps, guidance, fixed=frozenset({"steps", "guidance"}))
    assert sampling(asked, fixed) == own


def test_known_profiles_can_be_used_as_they_are_and_name_their_source() -> None:
    for profile in KNOWN.values():
        assert profile.source
        assert profile.steps is None or 1 <= profile.steps < CLIENT_STEPS
        assert profile.scheduler is None or profile.scheduler in SCHEDULERS
        assert all(getattr(profile, name) is not None for name in profile.fixed)


def test_settings_come_to_a_profile_and_as_sent_leaves_its_scheduler_alone() -> None:
    given_ = settings(
        steps=8,
        guidance=5,
        size="768x512",
        scheduler="DDIMScheduler",
        scheduler_options={"timestep_spacing": "trailing", "set_alpha_to_one": False},
    )
    models = catalogue(given_)
    profile = models.models[0].profile
    assert profile is not None
    assert (profile.steps, profile.guidance, profile.size) == (8, 5.0, (768, 512))
    assert profiles(given_, models) == {BUILTIN_MODEL: profile}
    as_sent = given_.model_copy(update={"defaults_policy": "as-sent"})
    assert profiles(as_sent, models) == {}
    assert model_specs(models)[0].scheduler == SchedulerChoice(
        "DDIMScheduler", (("set_alpha_to_one", False), ("timestep_spacing", "trailing"))
    )


def test_an_empty_table_does_without_what_is_known() -> None:
    profile = catalogue(settings()).models[0].profile
    assert profile == Profile(source="the settings")


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"steps": 0}, "greater than or equal to 1"),
        ({"guidance": -1}, "greater than or equal to 0"),
        ({"size": "large"}, "1024x576"),
        ({"size": "4x4"}, "greater than or equal to 8"),
        ({"scheduler": "os.system"}, "there are DDIMScheduler"),
        ({"scheduler_options": {"timestep_spacing": "trailing"}}, "name it, too"),
        ({"fixed": ["steps"]}, "has no value"),
        ({"sampler": "x"}, "no such setting"),
    ],
)
def test_a_wrong_profile_is_refused_by_key(fields: dict[str, Any], words: str) -> None:
    with pytest.raises(ConfigError, match=words) as caught:
        settings(**fields)
    assert caught.value.key.startswith("models.0.profile")
