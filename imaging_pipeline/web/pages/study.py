"""What the pages of a study, a series and an instance show."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any, Final

from imaging_pipeline.web.errors import WebError
from imaging_pipeline.web.index import Index, Instance, Level, Search
from imaging_pipeline.web.matching import Condition
from imaging_pipeline.web.pages.attributes import groups_of
from imaging_pipeline.web.pages.facts import Rows, facts
from imaging_pipeline.web.pages.lineage import by_key, path_of, steps
from imaging_pipeline.web.pages.rendering import uid_name
from imaging_pipeline.web.pages.searching import told
from imaging_pipeline.web.zone import Zone

PREVIEWS: Final = 6
"""Pictures of a series on the page of its study."""

PER_PAGE: Final = 60
"""Pictures on the page of a series."""

MOST_SERIES: Final = 1_000

OF_STUDY: Final = ("issues", "predictions", "lungs", "labels", "annotations", "results", "findings", "deliveries")


@dataclass(frozen=True, slots=True)
class Card:
    """A series.

    Attributes:
        uid: Series Instance UID.
        told: its attributes by tag.
        instances: all of them, by number.
    """

    uid: str
    told: Mapping[str, Any]
    instances: list[Instance]

    @property
    def previews(self) -> list[Instance]:
        """A few of its instances, evenly over the series."""
        count = len(self.instances)
        if count <= PREVIEWS:
            return self.instances
        return [self.instances[place * count // PREVIEWS] for place in range(PREVIEWS)]

    @property
    def size(self) -> int:
        """Bytes of its objects."""
        return sum(one.size for one in self.instances)


@dataclass(frozen=True, slots=True)
class Judged:
    """An image and what was said of it.

    Attributes:
        key: of the instance.
        instance: it, or None where it is not served any more.
        predictions: of models, the champion's first.
        pictures: results to look at: the film with its heat map.
        reports: results in words, with what they say.
        lungs: its segmentation, or None.
        labels: what people or reports say of it.
    """

    key: str
    instance: Instance | None
    predictions: Rows
    pictures: Rows
    reports: Rows
    lungs: Mapping[str, Any] | None
    labels: Rows


def study_page(zone: Zone, index: Index, study: str) -> dict[str, Any]:
    """Values of the page of a study.

    Raises:
        WebError: 404.
    """
    instances = index.instances(study)
    if not instances:
        raise WebError(404, "there is no such study here")
    header = _document(index, Search(Level.STUDY, conditions=(_is("0020000D", study),), has_all_fields=True))
    known = facts(zone, instances, OF_STUDY)
    of_key = by_key(instances)
    objects = {key: one for one in instances for key in (one.object_key, one.instance_key)}
    return {
        "study": study,
        "told": header,
        "size": sum(one.size for one in instances),
        "cards": _cards(index, study, instances),
        "judged": _judged(known, of_key),
        "segmentations": of_key,
        "issues": [(objects[row["object_key"]], row) for row in known["issues"]],
        "annotations": [(of_key.get(row["instance_key"]), row) for row in known["annotations"]],
        "deliveries": known["deliveries"],
        "path_of": path_of,
    }


def series_page(index: Index, study: str, series: str, number: int) -> dict[str, Any]:
    """Values of the page of a series.

    Raises:
        WebError: 404.
    """
    instances = index.instances(study, series)
    if not instances:
        raise WebError(404, "there is no such series here")
    (card,) = _cards(index, study, instances)
    first = (number - 1) * PER_PAGE
    return {
        "study": study,
        "card": card,
        "shown": instances[first : first + PER_PAGE],
        "page": number,
        "pages": -(-len(instances) // PER_PAGE),
        "path_of": path_of,
    }


def instance_page(zone: Zone, index: Index, uids: tuple[str, str, str], wanted: str, frame: int) -> dict[str, Any]:
    """Values of the page of an instance.

    Args:
        zone: whose instance it is.
        index: finds it.
        uids: of study, series and instance.
        wanted: a part of the names of the attributes that are shown.
        frame: which is shown, from 1.

    Raises:
        WebError: 404.
        PoisonInput: its header cannot be read.
    """
    one = index.instance(*uids)
    if one is None or not 1 <= frame <= max(one.number_of_frames or 1, 1):
        raise WebError(404, "there is no such object here")
    series = index.instances(*uids[:2])
    place = series.index(one)
    header = next(iter(index.headers([one])))[1]
    groups, is_whole = groups_of(header, wanted)
    known = facts(zone, [one])
    return {
        "study": one.study_instance_uid,
        "one": one,
        "kind": uid_name(one.sop_class_uid),
        "before": series[place - 1] if place else None,
        "after": series[place + 1] if place + 1 < len(series) else None,
        "place": place + 1,
        "count": len(series),
        "frame": frame,
        "groups": groups,
        "is_whole": is_whole,
        "wanted": wanted,
        "issues": known["issues"],
        "report": known["report"],
        "segments": known["segments"],
        "lineage": steps(zone, one, known, by_key(index.instances(one.study_instance_uid))),
        "path_of": path_of,
    }


def _cards(index: Index, study: str, instances: Sequence[Instance]) -> list[Card]:
    search = Search(Level.SERIES, study=study, has_all_fields=True, limit=MOST_SERIES)
    series = {match.uids[1]: told(match.document) for match in index.search(search).matches}
    return [
        Card(uid, series.get(uid, told({})), list(group))
        for uid, group in groupby(instances, lambda one: one.series_instance_uid)
    ]


def _judged(known: Mapping[str, Rows], study: Mapping[str, Instance]) -> list[Judged]:
    """What was said of each image, images in the order of the study."""
    said = {"predictions": "instance_key", "labels": "instance_key", "results": "source_instance_key"}
    keys = {row[column] for name, column in said.items() for row in known[name]}
    lungs = {row["instance_key"]: row for row in known["lungs"]}
    findings = {key: list(rows) for key, rows in groupby(known["findings"], lambda row: row["instance_key"])}
    order = {key: place for place, key in enumerate(study)}
    found = []
    for key in sorted(keys | lungs.keys(), key=lambda key: (order.get(key, len(order)), key)):
        results = [row for row in known["results"] if row["source_instance_key"] == key]
        found.append(
            Judged(
                key,
                study.get(key),
                [row for row in known["predictions"] if row["instance_key"] == key],
                [row for row in results if row["kind"] == "SC"],
                [row | {"says": findings.get(row["instance_key"], [])} for row in results if row["kind"] == "SR"],
                lungs.get(key),
                [row for row in known["labels"] if row["instance_key"] == key],
            )
        )
    return found


def _is(tag: str, uid: str) -> Condition:
    return Condition((tag,), "UI", uid)


def _document(index: Index, search: Search) -> Mapping[str, Any]:
    """The attributes of the first match by tag."""
    return next((told(match.document) for match in index.search(search).matches), told({}))
