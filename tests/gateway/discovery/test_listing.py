"""Sources in, who is asked and who may be paid out."""

from hypothesis import given
from hypothesis import strategies as st

from gateway.discovery.listing import (
    MOST_LISTED,
    SETTINGS,
    Admitted,
    Claim,
    Roster,
    Rules,
    admit,
)
from gateway.payments.appraisal import Payees
from network.units import Address

ALICE, BOB, CAROL = (Address(bytes([number]) * 20) for number in (1, 2, 3))
URI = "https://gpu.example:8935"

hosts = st.sampled_from(["a.example", "b.example:1", "10.0.0.1", "localhost", "bad host", ""])
accounts = st.sampled_from([None, ALICE, BOB, CAROL])
claims = st.lists(
    st.builds(Claim, hosts, accounts, st.sampled_from(["", "", "", "unreadable"])), max_size=12
)
rules = st.builds(
    Rules,
    st.frozensets(st.sampled_from([ALICE, BOB])),
    st.frozensets(st.sampled_from(["https://a.example:8935", "https://10.0.0.1:8935"])),
)


@given(claims, rules)
def test_every_entry_is_used_or_told_of(listed: list[Claim], rules: Rules) -> None:
    public = admit(listed, rules, allow_private=False).accounts
    assert not any("10.0" in uri or "localhost" in uri for uri in public)
    admitted = admit(listed, rules, allow_private=True)
    assert public.keys() <= admitted.accounts.keys()
    assert not rules.blocked_uris & admitted.accounts.keys()
    used = [one for one in listed if one.text and one.text in " ".join(admitted.accounts)]
    unused = [one for one in listed if one not in used]
    assert admitted.skipped_count == len(admitted.skipped)
    assert admitted.skipped_count >= len(unused)
    assert all(one.why for one in admitted.skipped)
    for accounts in admitted.accounts.values():
        assert accounts is None or (accounts and not accounts & rules.blocked_accounts)


@given(st.dictionaries(st.sampled_from([SETTINGS, "webhook", "signer", "chain"]), claims))
def test_nobody_is_paid_whom_no_source_stands_for(lists: dict[str, list[Claim]]) -> None:
    roster = Roster()
    admitted = {name: admit(one, Rules(), allow_private=True) for name, one in lists.items()}
    for name, one in admitted.items():
        roster.update(name, one)
    for uri in {uri for one in admitted.values() for uri in one.accounts}:
        payees = roster.payees(uri)
        told = [one.accounts[uri] for one in admitted.values() if uri in one.accounts]
        pinned = admitted[SETTINGS].accounts.get(uri) if SETTINGS in admitted else None
        if pinned:
            assert payees == Payees(pinned, any_named=False)
            continue
        assert payees.any_named == (None in told)
        assert all(any(account in (one or ()) for one in told) for account in payees.accounts)
        assert payees.any_named or payees.accounts
    assert roster.payees("https://nobody.example:8935") == Payees(frozenset(), any_named=False)


@given(claims, rules)
def test_what_was_admitted_is_admitted_again_as_it_is(listed: list[Claim], rules: Rules) -> None:
    """What is remembered goes through the same gate at the next start."""
    first = admit(listed, rules, allow_private=True)
    again = [
        Claim(uri, account)
        for uri, known in first.accounts.items()
        for account in (known or [None])
    ]
    assert admit(again, rules, allow_private=True).accounts == first.accounts


def test_two_that_registered_one_address_may_both_be_paid_there() -> None:
    admitted = admit([Claim(URI, ALICE), Claim("gpu.example", BOB)], Rules(), allow_private=False)
    assert admitted.accounts == {URI: frozenset({ALICE, BOB})}


def test_one_of_two_on_the_blocklist_leaves_the_other() -> None:
    listed = [Claim(URI, ALICE), Claim(URI, BOB)]
    admitted = admit(listed, Rules(frozenset({ALICE})), allow_private=False)
    assert admitted.accounts == {URI: frozenset({BOB})}
    assert [one.why for one in admitted.skipped] == ["its account is on the blocklist"]


def test_the_operators_word_on_whom_to_pay_goes_before_the_chains() -> None:
    roster = Roster()
    roster.update("chain", Admitted({URI: frozenset({ALICE})}))
    assert roster.payees(URI) == Payees(frozenset({ALICE}), any_named=False)
    roster.update("webhook", Admitted({URI: None}))
    assert roster.payees(URI) == Payees(frozenset({ALICE}), any_named=True)
    roster.update(SETTINGS, Admitted({URI: frozenset({BOB})}))
    assert roster.payees(URI) == Payees(frozenset({BOB}), any_named=False)


def test_a_list_has_an_end() -> None:
    listed = [Claim(f"https://gpu{number}.example") for number in range(MOST_LISTED + 200)]
    admitted = admit(listed, Rules(), allow_private=False)
    assert len(admitted.accounts) == MOST_LISTED
    assert admitted.skipped_count == 200
    assert len(admitted.skipped) == 50


def test_a_strangers_bytes_are_not_shown_as_they_are() -> None:
    text = "https://x\x1b[2J" + "y" * 500
    skipped = admit([Claim(text, ALICE)], Rules(), allow_private=False).skipped
    assert len(skipped[0].text) <= 100
    assert "\x1b" not in skipped[0].text


def test_only_strangers_hosts_must_not_be_private() -> None:
    roster = Roster({"chain"})
    roster.update("chain", Admitted({URI: frozenset({ALICE}), "https://b.example:1": None}))
    roster.update("webhook", Admitted({"https://b.example:2": None}))
    assert not roster.may_be_private("gpu.example")
    assert not roster.may_be_private("nobody.example")
    assert roster.may_be_private("B.example")
    roster.update("webhook", Admitted())
    assert not roster.may_be_private("b.example")
    assert Roster().may_be_private("gpu.example")
