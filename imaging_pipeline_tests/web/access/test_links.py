"""Links: good for what they name, for as long as they say, and for nothing else."""

from __future__ import annotations

from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import pytest

from imaging_pipeline.errors import ConfigurationError
from imaging_pipeline.web.access.gate import Access
from imaging_pipeline.web.access.roles import Role, Scope, Way
from imaging_pipeline_tests.web.access.conftest import Clock

PATH = "/dicom-web/studies/1.2.3/rendered"


def opened(access: Access, link: str) -> bool:
    parts = urlsplit(link)
    return access.links.of_path(parts.path, parts.query) is not None


def test_a_link_opens_its_path_as_its_maker_to_read_alone(access: Access) -> None:
    parts = urlsplit(access.links.to_path("annotator", PATH))
    principal = access.links.of_path(parts.path, parts.query)
    assert principal is not None
    assert (principal.name, principal.via, principal.scopes) == ("annotator", Way.LINK, {Scope.READ})
    assert access.entrance.may_read(principal)
    assert not access.entrance.may_write(principal)


def test_a_link_opens_no_other_path_query_zone_user_or_time(access: Access, tmp_path: Path) -> None:
    link = access.links.to_path("reader", f"{PATH}?viewport=64,64")
    until, name, seal = parse_qs(urlsplit(link).query)["link"][0].split(".")
    assert opened(access, link)
    later = link.replace(until, str(int(until) + 60))
    other_user = link.replace(name, "YW5ub3RhdG9y")
    for changed in (
        link.replace("1.2.3", "1.2.4"),
        link.replace("rendered", "metadata"),
        link.replace("/rendered", "/rendered/"),
        link.replace("64,64", "65,64"),
        link.replace("?", "?quality=1&"),
        f"{link}&quality=1",
        f"{link}&link=x",
        later,
        other_user,
        link.replace(seal, seal[::-1]),
        link.replace(seal, ""),
        link.replace(f".{seal}", ""),
        f"{PATH}?viewport=64,64&link=é.é.é",
        f"{PATH}?viewport=64,64&link={'9' * 5000}..",
        f"{PATH}?viewport=64,64",
    ):
        assert not opened(access, changed), changed
    key = (tmp_path / "access" / "service.key").read_bytes()
    (tmp_path / "copy").mkdir(mode=0o700)
    (tmp_path / "copy" / "service.key").write_bytes(key)
    (tmp_path / "copy" / "service.key").chmod(0o600)
    clinical = Access("clinical", tmp_path / "copy", clock=Clock())
    clinical.accounts.add_user("reader", {Role.CLINICAL})
    assert not opened(clinical, link), "of the other zone, even with the same key"


def test_the_parts_of_a_link_cannot_be_moved_against_each_other(access: Access) -> None:
    link = access.links.to_path("reader", "/a?b=c")
    ticket = parse_qs(urlsplit(link).query)["link"][0]
    assert not opened(access, f"/a%3Fb=c?link={ticket}")
    assert not opened(access, f"/a?b=c&?link={ticket}")


def test_a_link_ends(access: Access, clock: Clock) -> None:
    link = access.links.to_path("reader", PATH, days=1)
    clock.now += 86_399
    assert opened(access, link)
    clock.now += 1
    assert not opened(access, link)


def test_links_are_revoked_by_a_new_key_or_with_their_user(access: Access) -> None:
    first, second = access.links.to_path("reader", PATH), access.links.to_path("annotator", PATH)
    access.accounts.revoke_user("reader")
    assert [opened(access, first), opened(access, second)] == [False, True]
    access.accounts.revoke_links()
    assert not opened(access, second)
    assert opened(access, access.links.to_path("annotator", PATH))


def test_a_link_to_a_study_begins_a_session_that_ends_with_it(access: Access, clock: Clock) -> None:
    parts = urlsplit(access.links.to_study("reader", "1.2.3", days=1 / 24))
    ticket = parts.path.removeprefix("/link/")
    found = access.links.of_study(ticket, "1.2.3")
    assert found is not None
    assert found[0].study == "1.2.3"
    assert found[1] == clock.now + 3600
    assert access.links.of_study(ticket, "1.2.4") is None
    assert access.links.of_path(f"/link/{ticket}", f"link={ticket}") is None, "it opens no path by itself"
    value, seconds = access.accounts.begin_session(*found[:1], until=found[1])
    assert seconds == 3600
    session = access.accounts.of_session(value)
    assert session is not None
    assert (session.via, session.study) == (Way.LINK, "1.2.3")
    access.accounts.revoke_links()
    assert access.accounts.of_session(value) is None


def test_a_session_by_link_ends_when_its_maker_is_let_in_no_more(access: Access) -> None:
    found = access.links.of_study(urlsplit(access.links.to_study("reader", "1.2.3")).path[6:], "1.2.3")
    assert found is not None
    value, _ = access.accounts.begin_session(found[0], until=found[1])
    assert access.accounts.of_session(value) is not None
    access.accounts.revoke_user("reader")
    assert access.accounts.of_session(value) is None


def test_links_are_made_for_paths_of_this_service_by_people_who_are_let_in(access: Access) -> None:
    for wrong in ("studies", "https://elsewhere/x", "//elsewhere/x", "/a%2Fb", "/a#b"):
        with pytest.raises(ConfigurationError, match="path of this service"):
            access.links.to_path("reader", wrong)
    with pytest.raises(ConfigurationError, match="user add"):
        access.links.to_path("nobody", PATH)
    with pytest.raises(ConfigurationError, match="31 days"):
        access.links.to_study("reader", "1.2.3", days=32)
