"""Users and tokens: what lets somebody in, and what ends it at once."""

from __future__ import annotations

import stat
from pathlib import Path

import pytest

from imaging_pipeline.errors import ConfigurationError
from imaging_pipeline.web.access.gate import Access
from imaging_pipeline.web.access.roles import Principal, Role, Scope, Way
from imaging_pipeline_tests.web.access.conftest import Clock, token_of


def found(principal: Principal | None) -> Principal:
    assert principal is not None
    return principal


def test_a_token_is_its_user_with_the_roles_they_have_now(access: Access) -> None:
    token = token_of(access, "reader")
    assert found(access.accounts.of_token(token)).roles == {Role.RESEARCH}
    access.accounts.add_user("reader", {Role.OPERATOR})
    principal = found(access.accounts.of_token(token))
    assert (principal.name, principal.roles, principal.projects) == ("reader", {Role.OPERATOR}, set())


def test_no_file_of_the_service_holds_a_token_or_session(access: Access, tmp_path: Path) -> None:
    token = token_of(access, "reader")
    value, _ = access.accounts.begin_session(found(access.accounts.of_token(token)), token)
    kept = b"".join(path.read_bytes() for path in (tmp_path / "access").iterdir())
    for secret in (token, token.rpartition("_")[2], value):
        assert secret.encode() not in kept
    assert bytes.fromhex(token.rpartition("_")[2]) not in kept


def test_every_file_is_for_its_owner_alone(access: Access, tmp_path: Path) -> None:
    token_of(access, "reader")
    folder = tmp_path / "access"
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    assert {stat.S_IMODE(path.stat().st_mode) for path in folder.glob("*.sqlite*")} == {0o600}
    assert stat.S_IMODE((folder / "service.key").stat().st_mode) == 0o600


def test_a_folder_or_key_that_others_can_read_is_refused(access: Access, tmp_path: Path) -> None:
    folder = tmp_path / "access"
    (folder / "service.key").chmod(0o640)
    with pytest.raises(ConfigurationError, match="chmod 600"):
        Access("research", folder)
    folder.chmod(0o750)
    with pytest.raises(ConfigurationError, match="mode 0700"):
        Access("research", folder)


def test_a_changed_cut_or_foreign_token_opens_nothing(access: Access, tmp_path: Path) -> None:
    token = token_of(access, "reader")
    other = token_of(access, "annotator")
    swapped = token[:17] + other[17:]
    last = "0" if token[-1] != "0" else "1"
    for wrong in (
        "",
        "ipt_",
        token[:-1],
        token + "0",
        token[:-1] + last,
        swapped,
        token.upper(),
        f" {token}",
        "a\0b",
        "é",
    ):
        assert access.accounts.of_token(wrong) is None, wrong
    elsewhere = Access("research", tmp_path / "elsewhere")
    elsewhere.accounts.add_user("reader", {Role.RESEARCH}, {"lung"})
    assert elsewhere.accounts.of_token(token) is None


def test_tokens_end_and_so_do_their_sessions(access: Access, clock: Clock) -> None:
    token = access.accounts.create_token("reader", days=1 / 24).text
    value, seconds = access.accounts.begin_session(found(access.accounts.of_token(token)), token)
    assert seconds == 12 * 3600
    assert found(access.accounts.of_session(value)).via is Way.SESSION
    clock.now += 3599
    assert access.accounts.of_session(value)
    assert access.accounts.of_token(token)
    clock.now += 1
    assert access.accounts.of_session(value) is None
    assert access.accounts.of_token(token) is None


def test_a_session_ends_after_its_hours_however_long_its_token(access: Access, clock: Clock) -> None:
    token = token_of(access, "reader")
    value, seconds = access.accounts.begin_session(found(access.accounts.of_token(token)), token)
    clock.now += seconds
    assert access.accounts.of_session(value) is None
    assert access.accounts.of_token(token)


def test_revoking_a_token_or_user_acts_at_once_on_tokens_and_sessions(access: Access, tmp_path: Path) -> None:
    first, second = token_of(access, "reader"), token_of(access, "reader")
    sessions = [
        access.accounts.begin_session(found(access.accounts.of_token(each)), each)[0] for each in (first, second)
    ]
    other_process = Access("research", tmp_path / "access", project="lung", clock=lambda: 1_800_000_000.0).accounts
    other_process.revoke_token(first[4:16])
    assert [access.accounts.of_token(each) is None for each in (first, second)] == [True, False]
    assert [access.accounts.of_session(each) is None for each in sessions] == [True, False]
    other_process.revoke_user("reader")
    assert access.accounts.of_token(second) is None
    assert access.accounts.of_session(sessions[1]) is None
    access.accounts.add_user("reader", {Role.RESEARCH})
    assert access.accounts.of_token(second) is None, "an old token comes back to life with its user"


def test_a_session_that_is_ended_is_over(access: Access) -> None:
    token = token_of(access, "reader")
    value, _ = access.accounts.begin_session(found(access.accounts.of_token(token)), token)
    access.accounts.end_session(value)
    assert access.accounts.of_session(value) is None


def test_what_cannot_be_is_refused_and_says_what_can(access: Access) -> None:
    accounts = access.accounts
    for name in ("", "Ann", "a b", "oidc:ann", "-x", "a" * 65, "a\n"):
        with pytest.raises(ConfigurationError, match="name"):
            accounts.add_user(name, {Role.RESEARCH})
    with pytest.raises(ConfigurationError, match="clinical, research"):
        accounts.add_user("ann", set())
    with pytest.raises(ConfigurationError, match="comma"):
        accounts.add_user("ann", {Role.RESEARCH}, {"a,b"})
    with pytest.raises(ConfigurationError, match="user add"):
        accounts.create_token("nobody")
    with pytest.raises(ConfigurationError, match="366"):
        accounts.create_token("reader", days=367)
    with pytest.raises(ConfigurationError, match="user list"):
        accounts.revoke_user("nobody")
    with pytest.raises(ConfigurationError, match="token list"):
        accounts.revoke_token("0" * 12)


@pytest.mark.parametrize(
    ("user", "reads", "writes", "audits"),
    [
        ("reader", True, False, False),
        ("annotator", True, True, False),
        ("stranger", False, False, True),
        ("clinician", False, False, False),
        ("operator", False, False, True),
    ],
)
def test_a_role_opens_what_it_names_and_only_in_its_zone_and_project(
    access: Access, user: str, *, reads: bool, writes: bool, audits: bool
) -> None:
    principal = found(access.accounts.of_token(token_of(access, user)))
    entrance = access.entrance
    assert (entrance.may_read(principal), entrance.may_write(principal), entrance.may_audit(principal)) == (
        reads, writes, audits,
    )  # fmt: skip


def test_a_token_opens_no_more_than_its_scopes(access: Access) -> None:
    token = access.accounts.create_token("annotator", {Scope.READ})
    principal = found(access.accounts.of_token(token.text))
    assert access.entrance.may_read(principal)
    assert not access.entrance.may_write(principal)
    writer = found(access.accounts.of_token(access.accounts.create_token("annotator", {Scope.WRITE}).text))
    assert not access.entrance.may_read(writer)


def test_the_clinical_zone_asks_for_its_own_role_and_for_no_project(tmp_path: Path) -> None:
    clinical = Access("clinical", tmp_path / "clinical", project="lung")
    for name, role, opens in (("doctor", Role.CLINICAL, True), ("student", Role.RESEARCH, False)):
        clinical.accounts.add_user(name, {role}, {"lung"} if role is Role.RESEARCH else ())
        assert clinical.entrance.may_read(found(clinical.accounts.of_token(token_of(clinical, name)))) is opens
