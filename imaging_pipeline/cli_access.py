"""The commands below ``imaging-pipeline access``: users, tokens, links and the audit log of a zone.

Reads arguments and prints; every change, and every query of ``sql``, is a row of the zone's audit log under the name
of the account of this machine that makes it.
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import pwd
import sys
from collections.abc import Callable
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final

from imaging_pipeline.errors import ConfigurationError
from imaging_pipeline.settings import Settings

if TYPE_CHECKING:
    from imaging_pipeline.web.access.gate import Access

OK, FAILED = 0, 1

ZONES: Final = ("research", "clinical")
ROLES: Final = ("clinical", "research", "annotator", "operator")
SCOPES: Final = ("read", "write", "audit")
SHELL: Final = "shell"
"""How somebody who gives a command has shown who they are: by their account on this machine."""

_ZONES_OF_LAKE: Final = {"research": ("research",), "identified": ("clinical",), "both": ("clinical", "research")}

Action = Callable[[argparse.Namespace, "Access"], int]


def add_access(commands: Any) -> None:
    """Add ``access`` and what is below it to the commands of the program."""
    access = commands.add_parser("access", help="who may see what: users, tokens, links, the audit log")
    below = access.add_subparsers(required=True, metavar="COMMAND")
    _add_users(_group(below, "user", "who is let in"))
    _add_tokens(_group(below, "token", "what users log in with"))
    _add_links(_group(below, "link", "links that open one path or study for some time"))
    _add_audit(_group(below, "audit", "who saw what"))


def record_query(settings: Settings, lake: str, sql: str, *, is_reidentified: bool = False) -> None:
    """Write a query of ``imaging-pipeline sql`` to the audit log of each zone it may read, before it runs.

    The row names the tables, as far as the registry knows them, and a keyed digest of the text, never the text.

    Raises:
        ImagingError: it cannot be written, so the query must not run.
    """
    from imaging_pipeline.web.access.audit import BEGUN, Event, open_audit  # noqa: PLC0415 - only what is audited pays

    for zone in _ZONES_OF_LAKE[lake]:
        log = open_audit(settings, zone)
        what = f"lake {lake}{', reidentified' if is_reidentified else ''}"
        detail = f"{','.join(_tables(sql))} {log.digest(sql)}".strip()
        log.append(Event(action="sql", who=_account(), via=SHELL, resource=what, outcome=BEGUN, detail=detail))


def _group(below: Any, name: str, text: str) -> Any:
    return below.add_parser(name, help=text).add_subparsers(required=True, metavar="COMMAND")


def _add_users(group: Any) -> None:
    add = _command(group, "add", "add a user, or give one other roles and projects", _add_user)
    add.add_argument("name", help="a-z, 0-9 and . _ @ -")
    add.add_argument("--role", action="append", required=True, choices=ROLES, help="may be given several times")
    add.add_argument("--project", action="append", default=[], help="research project they may see; likewise")
    _command(group, "list", "all users with their roles", _list_users)
    _command(group, "revoke", "let a user in no more, by any way", _revoke_user).add_argument("name")


def _add_tokens(group: Any) -> None:
    create = _command(group, "create", "make a token; its text is shown this once", _create_token)
    create.add_argument("user")
    create.add_argument("--scope", action="append", choices=SCOPES, help="default: read and write")
    create.add_argument("--days", type=_days, default=None, help="how long it is good (default: 90)")
    _command(group, "list", "all tokens, without their texts", _list_tokens)
    _command(group, "revoke", "let a token open nothing any more", _revoke_token).add_argument("token", metavar="ID")


def _add_links(group: Any) -> None:
    create = _command(group, "create", "make a link that lets in whoever has it, as a user, to read", _create_link)
    create.add_argument("user", help="whose rights it has")
    what = create.add_mutually_exclusive_group(required=True)
    what.add_argument("--path", help="a path of the service, with its query")
    what.add_argument("--study", metavar="UID", help="a study, in the viewer and DICOMweb")
    create.add_argument("--days", type=_days, default=1.0, help="how long it is good (default: 1)")
    create.add_argument("--base", default="http://127.0.0.1:8080", metavar="URL", help="where the service is reached")
    _command(group, "revoke", "let no link that was made until now open anything", _revoke_links)


def _add_audit(group: Any) -> None:
    show = _command(group, "show", "rows of the audit log, as CSV", _show_audit)
    show.add_argument("--after", type=_count, default=0, metavar="ROW", help="rows behind this one")
    show.add_argument("--limit", type=_count, default=1000)
    for name in ("who", "action", "study", "outcome"):
        show.add_argument(f"--{name}", default=None, help=f"only rows with this {name}")
    verify = _command(group, "verify", "prove that no row was changed, moved or cut off", _verify_audit)
    verify.add_argument("--head", action="append", default=[], metavar="ROW:SEAL", help="a head printed earlier")
    _command(group, "head", "print the head: keep it elsewhere, for 'verify --head'", _print_head)


def _command(group: Any, name: str, text: str, action: Action) -> Any:
    command = group.add_parser(name, help=text)
    command.add_argument("--zone", choices=ZONES, default=ZONES[0], help=f"default: {ZONES[0]}")
    command.set_defaults(run=lambda options, settings: _run(options, settings, action))
    return command


def _run(options: argparse.Namespace, settings: Settings, action: Action) -> int:
    from imaging_pipeline.web.access.gate import open_access  # noqa: PLC0415 - only these commands pay for it

    return action(options, open_access(settings, options.zone))


def _add_user(options: argparse.Namespace, access: Access) -> int:
    from imaging_pipeline.web.access.roles import Role  # noqa: PLC0415

    if "research" in options.role and options.zone == "research" and not options.project:
        raise ConfigurationError(f"name their project: --project {access.entrance.project or 'NAME'}")
    user = access.accounts.add_user(options.name, map(Role, options.role), options.project)
    _record(access, "user add", f"{user.name}: {', '.join(sorted({*user.roles, *user.projects}))}")
    zone = "" if options.zone == "research" else f" --zone {options.zone}"
    print(
        f"{user.name} may enter the {options.zone} zone; next: imaging-pipeline access token create {user.name}{zone}"
    )
    return OK


def _list_users(_: argparse.Namespace, access: Access) -> int:
    for user in access.accounts.users():
        projects = f"; projects {', '.join(sorted(user.projects))}" if user.projects else ""
        print(f"{user.name:20} {', '.join(sorted(user.roles))}{projects}{'' if user.is_active else '; revoked'}")
    return OK


def _revoke_user(options: argparse.Namespace, access: Access) -> int:
    access.accounts.revoke_user(options.name)
    _record(access, "user revoke", options.name)
    print(f"{options.name} is let in no more; their tokens, sessions and links are dead")
    return OK


def _create_token(options: argparse.Namespace, access: Access) -> int:
    from imaging_pipeline.web.access.accounts import TOKEN_DAYS  # noqa: PLC0415
    from imaging_pipeline.web.access.roles import Scope  # noqa: PLC0415

    scopes = map(Scope, options.scope or ("read", "write"))
    token = access.accounts.create_token(options.user, scopes, options.days or TOKEN_DAYS)
    _record(access, "token create", f"{token.token_id} of {token.user}: {', '.join(sorted(token.scopes))}")
    print(f"good until {_day(token.expires_at)}; it is not shown again:", file=sys.stderr)
    print(token.text)
    return OK


def _list_tokens(_: argparse.Namespace, access: Access) -> int:
    for token in access.accounts.tokens():
        state = "revoked" if token.is_revoked else f"until {_day(token.expires_at)}"
        print(f"{token.token_id}  {token.user:20} {', '.join(sorted(token.scopes)):18} {state}")
    return OK


def _revoke_token(options: argparse.Namespace, access: Access) -> int:
    access.accounts.revoke_token(options.token)
    _record(access, "token revoke", options.token)
    print("the token and the sessions begun with it are dead")
    return OK


def _create_link(options: argparse.Namespace, access: Access) -> int:
    links = access.links
    if options.study:
        link = links.to_study(options.user, options.study, options.days)
    else:
        link = links.to_path(options.user, options.path, options.days)
    _record(access, "link create", f"as {options.user}, {'study' if options.study else 'path'}, {options.days:g} days")
    print(f"{options.base.rstrip('/')}{link}")
    return OK


def _revoke_links(_: argparse.Namespace, access: Access) -> int:
    access.accounts.revoke_links()
    _record(access, "link revoke")
    print("no link that was made until now opens anything")
    return OK


def _show_audit(options: argparse.Namespace, access: Access) -> int:
    from imaging_pipeline.web.access.audit import COLUMNS  # noqa: PLC0415

    _record(access, "audit")
    wanted = {name: value for name in ("who", "action", "study", "outcome") if (value := getattr(options, name))}
    table = csv.DictWriter(sys.stdout, COLUMNS)
    table.writeheader()
    table.writerows(access.audit.rows(options.after, options.limit, **wanted))
    return OK


def _verify_audit(options: argparse.Namespace, access: Access) -> int:
    from imaging_pipeline.web.access.audit import Head  # noqa: PLC0415

    verdict = access.audit.verify(*map(Head.parse, options.head))
    for fault in verdict.faults:
        print(f"FAULT  {fault}")
    if verdict.unanchored > 0:
        print(f"{verdict.unanchored} rows at the end are newer than the file of the head: a service was killed")
    print(f"{'sound' if verdict.is_sound else 'NOT sound'}: {verdict.head.row} rows; head {verdict.head}")
    return OK if verdict.is_sound else FAILED


def _print_head(_: argparse.Namespace, access: Access) -> int:
    print(access.audit.head())
    return OK


def _record(access: Access, action: str, detail: str = "") -> None:
    from imaging_pipeline.web.access.audit import Event  # noqa: PLC0415

    access.audit.append(Event(action=action, who=_account(), via=SHELL, detail=detail))


def _account() -> str:
    """Name of the account that runs this, which no variable of the environment can change."""
    try:
        return pwd.getpwuid(os.geteuid()).pw_name
    except KeyError:
        return str(os.geteuid())


def _tables(sql: str) -> list[str]:
    """Tables of the registry that a query names; of what it names besides nothing is told."""
    import duckdb  # noqa: PLC0415

    from imaging_pipeline.lake import registry  # noqa: PLC0415

    known = {f"{schema}.{table.name}" for schema in registry.SCHEMA_LAKES for table in registry.tables_of(schema)}
    with duckdb.connect() as connection:
        ((text,),) = connection.execute("SELECT json_serialize_sql(?)", [sql]).fetchall()
    return sorted(known & _named(json.loads(text)))


def _named(tree: object) -> set[str]:
    """``schema.table`` of each table in a parsed query, at any depth."""
    if isinstance(tree, list):
        return set().union(*map(_named, tree))
    if not isinstance(tree, dict):
        return set()
    found = set().union(*map(_named, tree.values()))
    if tree.get("type") == "BASE_TABLE":
        found.add(f"{tree.get('schema_name')}.{tree.get('table_name')}")
    return found


def _count(text: str) -> int:
    if not text.isdecimal():
        raise argparse.ArgumentTypeError("must be a whole number, 0 or more")
    return int(text)


def _days(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        raise argparse.ArgumentTypeError("must be a number of days") from None


def _day(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).date().isoformat()
