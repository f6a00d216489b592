"""Bodies of text-to-image requests for property tests: valid ones, near misses and rubbish."""

from typing import Any

from hypothesis import strategies as st

from network.wire.limits import (
    LARGEST_SEED,
    Limits,
    loras_pattern,
    negative_prompt_pattern,
    prompt_pattern,
)

#: Surfaces that differ in every bound.
SURFACES = (
    Limits(),
    Limits(prompt_parts=3, max_loras=2, max_images=1),
    Limits(
        size_multiple=16,
        min_side=72,
        max_width=600,
        max_height=128,
        max_steps=4,
        max_images=9,
        max_prompt_chars=40,
        max_guidance=2.5,
        max_loras=1,
    ),
)

json_values: st.SearchStrategy[Any] = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)


def near(*bounds: int) -> st.SearchStrategy[int | float]:
    """Whole numbers around bounds, some written as floats, and some anywhere."""
    whole = st.sampled_from([bound + step for bound in bounds for step in (-8, -1, 0, 1, 8)])
    return st.one_of(whole, whole.map(float), st.integers(), whole.map(lambda n: n + 0.5))


blanks = st.text(" \t\n\x00\x1f\x7f\x85\u00a0\u2003\u200b\u3000\ufeff|", max_size=6)


def bodies(limits: Limits) -> st.SearchStrategy[dict[str, Any]]:
    """Objects that are valid by the types, and within `limits` or nearly."""
    prompts = st.one_of(
        st.from_regex(prompt_pattern(limits.prompt_parts)),
        st.from_regex(negative_prompt_pattern(limits.prompt_parts)),
        st.text(),
        blanks,
        st.sampled_from([limits.max_prompt_chars, limits.max_prompt_chars + 1]).map("x".__mul__),
    )
    loras = st.one_of(
        st.from_regex(loras_pattern(limits.max_loras)),
        st.sampled_from(
            [
                "",
                " ",
                "{}",
                "[]",
                "3",
                "{",
                '{"a":1}',
                '{"a":"0.5","b":1e-3}',
                '{"a":-1}',
                '{"a":true}',
                '{"a":1,"a":2}',
                '{"a":05}',
                '{"a b":1}',
                '{"a":100}',
                '{"a":99.9}',
                '{"a":1}\n',
                '{"a":1,"b":1,"c":1}',
                "null",
                '{"a":NaN}',
                '{"a":{}}',
                '{"":1}',
            ],
        ),
        st.text(max_size=20),
    )
    return st.fixed_dictionaries(
        {"prompt": prompts},
        optional={
            "model_id": st.text(max_size=12)
            | st.sampled_from(["m" * 200, "m" * 201, "a\nb", "a\n"]),
            "loras": loras,
            "height": near(64, limits.min_side, limits.max_height, 576),
            "width": near(64, limits.min_side, limits.max_width, 600),
            "guidance_scale": st.floats(0, 40) | st.integers(-1, 40),
            "negative_prompt": prompts,
            "safety_check": st.booleans(),
            "seed": near(0, LARGEST_SEED, LARGEST_SEED - 4),
            "num_inference_steps": near(1, limits.max_steps),
            "num_images_per_prompt": near(1, 2, limits.max_images),
            "deterministic": st.booleans(),
        },
    )


def mutated(limits: Limits) -> st.SearchStrategy[dict[str, Any]]:
    """`bodies` of which one field, known or not, holds any JSON value or is missing."""

    def change(body: dict[str, Any], name: str, value: object) -> dict[str, Any]:
        if value is Ellipsis:
            return {key: kept for key, kept in body.items() if key != name}
        return {**body, name: value}

    names = st.sampled_from(["prompt", "seed", "width", "loras", "safety_check", "guidance_scale"])
    return st.builds(change, bodies(limits), names | st.text(), json_values | st.just(...))
