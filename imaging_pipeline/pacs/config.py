"""The PACS configuration: this installation as an application entity, its peers, what is fetched and what is sent.

Owns the names, defaults and limits of the YAML file that ``IMAGING_PIPELINE_PACS`` names. Opens no connection and
holds no secret: of a token only the name of its environment variable is written down.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from datetime import date, time
from enum import StrEnum
from pathlib import Path
from typing import TypeVar

from imaging_pipeline.errors import ConfigurationError
from imaging_pipeline.pacs.checked import Checked, read_mapping

Named = TypeVar("Named", "Peer", "Retrieval", "Delivery")


class PeerKind(StrEnum):
    """How a peer is spoken to."""

    DIMSE = "dimse"
    DICOMWEB = "dicomweb"
    ORTHANC = "orthanc"


class Method(StrEnum):
    """How a DIMSE peer gives studies: C-MOVE to our listener, or C-GET on the same association."""

    MOVE = "move"
    GET = "get"


class What(StrEnum):
    """What a delivery sends: released studies, results (SR, SC), segmentations, annotations, or what SQL names."""

    RELEASED = "released"
    RESULTS = "results"
    SEGMENTATIONS = "segmentations"
    ANNOTATIONS = "annotations"
    COHORT = "cohort"


class ZoneName(StrEnum):
    """Whose identifiers are sent: pseudonyms (research), or the originals (clinical)."""

    RESEARCH = "research"
    CLINICAL = "clinical"


@dataclass(frozen=True, slots=True)
class Tls:
    """Certificates for both directions (PS3.15 B.12); with them every DIMSE connection is encrypted and mutual.

    Attributes:
        certificate: our own, PEM, with its chain.
        key: its private key, readable by its owner alone.
        authorities: PEM of those whose certificates are believed.
    """

    certificate: Path
    key: Path
    authorities: Path


@dataclass(frozen=True, slots=True)
class OwnAe:
    """This installation as an application entity.

    Attributes:
        title: AE title.
        host: address the listener binds to.
        port: of the listener.
        tls: certificates; None: plain DICOM.
        associations: most at once; more are told to come again later.
        free_bytes: with less free space on the disk nothing is taken (status 0xA700).
        unknown_sop_classes: private and unknown storage classes are taken, too.
    """

    title: str = "PIPELINE"
    host: str = "127.0.0.1"
    port: int = 11112
    tls: Tls | None = None
    associations: int = 10
    free_bytes: int = 2_000_000_000
    unknown_sop_classes: bool = True


@dataclass(frozen=True, slots=True)
class Peer:
    """One system we receive from or send to.

    Attributes:
        name: letters, digits and underscores.
        kind: how it is spoken to.
        source: the folder source its objects land in, so their patient domain; None: nothing is taken from it.
        ae_title: of a DIMSE peer.
        host: of a DIMSE peer.
        port: of a DIMSE peer; None: it only calls us.
        addresses: from where a DIMSE peer may call; none given: its host.
        tls: a DIMSE peer is called with TLS; whether it calls with TLS is our listener's.
        tls_name: the name its certificate must hold; None: its host.
        url: of a DICOMweb service, or of Orthanc's REST API.
        token_variable: environment variable with a bearer token.
        user_variable: environment variable with ``user:password``.
        timeout_seconds: for an answer.
    """

    name: str
    kind: PeerKind
    source: str | None = None
    ae_title: str = ""
    host: str = ""
    port: int | None = None
    addresses: tuple[str, ...] = ()
    tls: bool = False
    tls_name: str | None = None
    url: str = ""
    token_variable: str | None = None
    user_variable: str | None = None
    timeout_seconds: float = 60.0


@dataclass(frozen=True, slots=True)
class Hours:
    """A part of each day, local time; it may span midnight.

    >>> night = Hours(time(20), time(6))
    >>> night.hold(time(23, 30)), night.hold(time(12))
    (True, False)
    """

    start: time
    end: time

    def hold(self, moment: time) -> bool:
        """Whether a time of day lies in them."""
        if self.start <= self.end:
            return self.start <= moment < self.end
        return moment >= self.start or moment < self.end


@dataclass(frozen=True, slots=True)
class NewStudies:
    """What is new at a peer, by study date.

    Attributes:
        since: studies before this date are not asked for.
        overlap_days: how far each look reaches back behind the last: studies come late, and grow.
        modalities: only studies with one of them; none given: all.
    """

    since: date
    overlap_days: int = 3
    modalities: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Retrieval:
    """Studies fetched from a peer, again and again.

    Exactly one of ``cohort`` and ``new_studies`` is given, and neither for Orthanc, whose log of changes is followed.

    Attributes:
        name: letters, digits and underscores; of its sensor.
        peer: from whom.
        cohort: CSV file with a column PatientID, AccessionNumber or StudyInstanceUID.
        new_studies: or what is new.
        method: of a DIMSE peer.
        hours: only in this part of the day; None: always.
        studies_per_hour: most, so that the peer can work; None: as fast as it goes.
        every_seconds: how often it is looked.
    """

    name: str
    peer: str
    cohort: Path | None = None
    new_studies: NewStudies | None = None
    method: Method = Method.MOVE
    hours: Hours | None = None
    studies_per_hour: int | None = None
    every_seconds: int = 300


@dataclass(frozen=True, slots=True)
class Delivery:
    """Objects sent to a peer, each once.

    Attributes:
        name: letters, digits and underscores; of its sensor.
        peer: to whom.
        what: which objects.
        zone: with whose identifiers; results alone are there with the originals.
        cohort: one SELECT that names what is sent, always and only with ``what: cohort``.
        hours: only in this part of the day; None: always.
        objects_per_second: most; None: as fast as it goes.
        every_seconds: how often it is looked for something to send.
    """

    name: str
    peer: str
    what: What
    zone: ZoneName = ZoneName.RESEARCH
    cohort: str | None = None
    hours: Hours | None = None
    objects_per_second: float | None = None
    every_seconds: int = 300


@dataclass(frozen=True, slots=True)
class PacsConfig:
    """All of the file."""

    ae: OwnAe = field(default_factory=OwnAe)
    peers: tuple[Peer, ...] = ()
    retrievals: tuple[Retrieval, ...] = ()
    deliveries: tuple[Delivery, ...] = ()

    def peer(self, name: str) -> Peer:
        """The peer of a name.

        Raises:
            ConfigurationError: there is none.
        """
        return _named("peer", self.peers, name)

    def retrieval(self, name: str) -> Retrieval:
        """The retrieval of a name; raises ConfigurationError when there is none."""
        return _named("retrieval", self.retrievals, name)

    def delivery(self, name: str) -> Delivery:
        """The delivery of a name; raises ConfigurationError when there is none."""
        return _named("delivery", self.deliveries, name)


def load_pacs(path: Path | None) -> PacsConfig:
    """The PACS configuration of a file; without a file: nobody is known, nothing is fetched or sent.

    Relative paths in it are taken from the file's folder.

    Raises:
        ConfigurationError: naming the entry and the key, and what is allowed there.
    """
    if path is None:
        return PacsConfig()
    folder = path.absolute().parent
    content = Checked(read_mapping(path), "the PACS file")
    content.refuse_unknown({"ae", "peers", "retrievals", "deliveries"})
    config = PacsConfig(
        _own_ae(content.mapping("ae"), folder),
        tuple(_peer(entry) for entry in content.entries("peers", "peer")),
        tuple(_retrieval(entry, folder) for entry in content.entries("retrievals", "retrieval")),
        tuple(_delivery(entry) for entry in content.entries("deliveries", "delivery")),
    )
    _refuse_twice("peer", [peer.name for peer in config.peers])
    jobs = [retrieval.name for retrieval in config.retrievals] + [delivery.name for delivery in config.deliveries]
    _refuse_twice("retrieval or delivery", jobs)
    _refuse_twice("AE title", [peer.ae_title for peer in config.peers if peer.ae_title])
    for retrieval in config.retrievals:
        _check_retrieval(retrieval, config.peer(retrieval.peer))
    for delivery in config.deliveries:
        config.peer(delivery.peer)
    return config


def _own_ae(entry: Checked, folder: Path) -> OwnAe:
    default = OwnAe()
    entry.refuse_unknown(set(OwnAe.__dataclass_fields__))
    return OwnAe(
        title=entry.title("title", default.title),
        host=entry.text("host", default.host),
        port=entry.whole("port", default.port, 1, 65_535),
        tls=_tls(entry.mapping("tls"), folder) if entry.has("tls") else None,
        associations=entry.whole("associations", default.associations, 1, 1_000),
        free_bytes=entry.whole("free_bytes", default.free_bytes, 0, 1 << 60),
        unknown_sop_classes=entry.flag("unknown_sop_classes", default=default.unknown_sop_classes),
    )


def _tls(entry: Checked, folder: Path) -> Tls:
    entry.refuse_unknown(set(Tls.__dataclass_fields__))
    return Tls(*(folder / Path(entry.text(key)).expanduser() for key in ("certificate", "key", "authorities")))


_KEYS_OF_KIND = {
    PeerKind.DIMSE: {"ae_title", "host", "port", "addresses", "tls", "tls_name"},
    PeerKind.DICOMWEB: {"url", "token_variable", "user_variable"},
    PeerKind.ORTHANC: {"url", "token_variable", "user_variable"},
}


def _peer(entry: Checked) -> Peer:
    kind = entry.choice("kind", PeerKind)
    entry.refuse_unknown({"name", "kind", "source", "timeout_seconds"} | _KEYS_OF_KIND[kind])
    is_dimse = kind is PeerKind.DIMSE
    return Peer(
        name=entry.name(),
        kind=kind,
        source=entry.name("source") if entry.has("source") else None,
        ae_title=entry.title("ae_title") if is_dimse else "",
        host=entry.text("host") if is_dimse else "",
        port=entry.whole("port", 0, 1, 65_535) if entry.has("port") else None,
        addresses=entry.texts("addresses"),
        tls=entry.flag("tls", default=False),
        tls_name=entry.optional_text("tls_name"),
        url="" if is_dimse else entry.url("url"),
        token_variable=entry.variable("token_variable"),
        user_variable=entry.variable("user_variable"),
        timeout_seconds=float(entry.whole("timeout_seconds", 60, 1, 3_600)),
    )


def _retrieval(entry: Checked, folder: Path) -> Retrieval:
    entry.refuse_unknown(set(Retrieval.__dataclass_fields__))
    default = Retrieval("", "")
    return Retrieval(
        name=entry.name(),
        peer=entry.name("peer"),
        cohort=folder / Path(entry.text("cohort")).expanduser() if entry.has("cohort") else None,
        new_studies=_new_studies(entry.mapping("new_studies")) if entry.has("new_studies") else None,
        method=entry.choice("method", Method, default.method),
        hours=_hours(entry),
        studies_per_hour=entry.optional_whole("studies_per_hour", 1, 1_000_000),
        every_seconds=entry.whole("every_seconds", default.every_seconds, 10, 86_400),
    )


def _new_studies(entry: Checked) -> NewStudies:
    entry.refuse_unknown(set(NewStudies.__dataclass_fields__))
    modalities = tuple(text.upper() for text in entry.texts("modalities"))
    return NewStudies(entry.day("since"), entry.whole("overlap_days", 3, 1, 3_650), modalities)


def _check_retrieval(retrieval: Retrieval, peer: Peer) -> None:
    who = f"retrieval {retrieval.name!r} of the PACS file"
    if peer.source is None:
        raise ConfigurationError(f"{who}: its peer {peer.name!r} needs a source: where its objects land")
    if peer.kind is PeerKind.DIMSE and peer.port is None:
        raise ConfigurationError(f"{who}: its peer {peer.name!r} needs a port")
    given = (retrieval.cohort is not None) + (retrieval.new_studies is not None)
    if peer.kind is PeerKind.ORTHANC and given:
        raise ConfigurationError(f"{who}: Orthanc's log of changes is followed: remove cohort and new_studies")
    if peer.kind is not PeerKind.ORTHANC and given != 1:
        raise ConfigurationError(f"{who}: give either cohort or new_studies")


def _delivery(entry: Checked) -> Delivery:
    entry.refuse_unknown(set(Delivery.__dataclass_fields__))
    default = Delivery("", "", What.RELEASED)
    what, zone = entry.choice("what", What), entry.choice("zone", ZoneName, default.zone)
    if (what is What.COHORT) != entry.has("cohort"):
        raise entry.wrong("cohort", "one SELECT, with 'what: cohort' and only with it")
    if zone is ZoneName.CLINICAL and what is not What.RESULTS:
        raise entry.wrong("what", "results in the clinical zone: all else exists under pseudonyms alone")
    return Delivery(
        name=entry.name(),
        peer=entry.name("peer"),
        what=what,
        zone=zone,
        cohort=entry.optional_text("cohort"),
        hours=_hours(entry),
        objects_per_second=entry.optional_number("objects_per_second", 0.001, 10_000.0),
        every_seconds=entry.whole("every_seconds", default.every_seconds, 10, 86_400),
    )


def _hours(entry: Checked) -> Hours | None:
    if not entry.has("hours"):
        return None
    found = re.fullmatch(r"([01]\d|2[0-3]):([0-5]\d)-([01]\d|2[0-3]):([0-5]\d)", entry.text("hours").strip())
    if not found:
        raise entry.wrong("hours", "a part of the day in quotes, as '20:00-06:00'")
    first, second, third, fourth = map(int, found.groups())
    return Hours(time(first, second), time(third, fourth))


def _refuse_twice(kind: str, names: list[str]) -> None:
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise ConfigurationError(f"the PACS file: {kind} {twice[0]!r} is there twice")


def _named(kind: str, things: tuple[Named, ...], name: str) -> Named:
    by_name = {thing.name: thing for thing in things}
    if name not in by_name:
        raise ConfigurationError(f"the PACS file has no {kind} {name!r}; it has {', '.join(by_name) or 'none'}")
    return by_name[name]
