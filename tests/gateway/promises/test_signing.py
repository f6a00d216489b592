"""Webhooks are signed as receivers' libraries check them."""

import base64
import hashlib
import hmac

from hypothesis import given
from hypothesis import strategies as st

from gateway.promises.signing import key_secret, shown_secret, signed_headers


def test_the_specifications_own_example() -> None:
    secret = base64.b64decode("MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw")
    body = b'{"test": 2432232314}'
    told = signed_headers(secret, "msg_p5jXN8AQM9LWM0D4loKWxJek", 1614265330, body)
    assert told["webhook-signature"] == "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="


@given(st.binary(min_size=32, max_size=32), st.text(), st.integers(0, 2**33), st.binary())
def test_whoever_was_shown_the_secret_can_check(
    master: bytes, key_id: str, at: int, body: bytes
) -> None:
    told = signed_headers(key_secret(master, key_id), "msg_1", at, body)
    shown = shown_secret(key_secret(master, key_id)).removeprefix("whsec_")
    content = f"msg_1.{told['webhook-timestamp']}.".encode() + body
    digest = hmac.new(base64.b64decode(shown), content, hashlib.sha256).digest()
    assert told["webhook-signature"] == "v1," + base64.b64encode(digest).decode()


@given(st.binary(min_size=32, max_size=32), st.text(), st.text())
def test_keys_have_secrets_of_their_own(master: bytes, one: str, other: str) -> None:
    assert (key_secret(master, one) == key_secret(master, other)) == (one == other)
