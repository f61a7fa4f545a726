"""Where an instance comes from and what was made of it, step by step, as far as its zone may know."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

from imaging_pipeline.objects.folder import path_to_uri
from imaging_pipeline.web.index import Instance
from imaging_pipeline.web.pages.facts import Rows
from imaging_pipeline.web.pages.rendering import amount, instance_path, moment, number, uid_name
from imaging_pipeline.web.zone import Zone, ZoneName

Field = tuple[str, object, str]
"""Name, value, and an address or nothing."""

DIGITS: Final = 12
"""Of a digest, enough to tell it from others."""


@dataclass(frozen=True, slots=True)
class Step:
    """One step.

    Attributes:
        title: what it is.
        things: of each its fields; none: this step was not made.
        missing: what to say then.
    """

    title: str
    things: list[list[Field]]
    missing: str = "None."


def steps(zone: Zone, one: Instance, known: Mapping[str, Rows], study: Mapping[str, Instance]) -> list[Step]:
    """The steps of one instance.

    Args:
        zone: whose instance it is.
        one: the instance.
        known: facts of it.
        study: instances of its study by key, to lead to them.
    """
    is_research = zone.name is ZoneName.RESEARCH
    sources = _sources(one, known["made_from"], study)
    before = [_released(one, known, zone)] if is_research else [_source_object(one, known), _copies(one, known)]
    if sources.things:
        before = [sources, *before[-1:]] if is_research else [sources]
    after = _learning(known) if is_research else []
    return [*before, *after, _made(one, known["made_from"], study), _results(one, known), _deliveries(known)]


def _source_object(one: Instance, known: Mapping[str, Rows]) -> Step:
    runs = {run["arrival_batch"]: run for run in known["runs"]}
    things = [
        [
            ("object", row["object_key"], ""),
            ("where", row["storage_uri"], ""),
            ("source", row["source_name"], ""),
            ("size", amount(row["length"]), ""),
            ("SHA-256", _short(row["sha256"]), ""),
            ("read as", f"{row['parse_status']}, parser {row['parser_version']}", ""),
            ("first seen", moment(row["first_seen_at"]), ""),
            ("batch", row["arrival_batch"], ""),
            ("Dagster run", runs.get(row["arrival_batch"], {}).get("orchestrator_run_id"), ""),
        ]
        for row in known["objects"]
        if row["object_key"] == one.object_key
    ]
    return Step("Source object", things, "The catalog has no object of this instance: it was made by this software.")


def _copies(one: Instance, known: Mapping[str, Rows]) -> Step:
    things = [
        [
            ("role", row["role"], ""),
            ("version", row["version_no"], ""),
            ("where", row["storage_uri"], ""),
            ("batch", row["arrival_batch"], ""),
        ]
        for row in known["copies"]
        if row["object_key"] != one.object_key
    ]
    return Step("Copies and other versions", things)


def _released(one: Instance, known: Mapping[str, Rows], zone: Zone) -> Step:
    place = one.uri.removeprefix(path_to_uri(zone.folder) + "/")
    shown: list[Field] = [("instance", one.instance_key, ""), ("file", place, ""), ("size", amount(one.size), "")]
    things: list[list[Field]] = [
        [
            *shown,
            ("SHA-256", _short(row["content_sha256"]), ""),
            ("profile", f"{row['profile_id']} {row['profile_version']}, engine {row['engine_version']}", ""),
            ("identifiers left", row["residual_hits"], ""),
            ("warnings", ", ".join(row["warnings"] or []) or "none", ""),
            ("original", f"{row['source_token']} (the key holder knows which)", ""),
            ("batch", one.arrival_batch, ""),
        ]
        for row in known["releases"]
    ]
    return Step("Released file", things or [[*shown, ("batch", one.arrival_batch, "")]])


def _learning(known: Mapping[str, Rows]) -> list[Step]:
    tensors: list[list[Field]] = [
        [
            ("tensor", _short(row["tensor_key"]), ""),
            ("recipe", f"{row['recipe']} {_short(row['recipe_id'])}", ""),
            ("shape", f"{' x '.join(map(str, row['shape'] or []))} {row['dtype']}", ""),
            ("SHA-256", _short(row["tensor_sha256"]), ""),
        ]
        for row in known["tensors"]
    ]
    members: list[list[Field]] = [
        [
            ("dataset", row["dataset_id"], ""),
            ("version", _short(row["dataset_version"]), ""),
            ("side", row["split"], ""),
            ("label", row["label_value"] or "none", ""),
            ("snapshot", row["snapshot_id"], ""),
            ("frozen", moment(row["created_at"]), ""),
        ]
        for row in known["members"]
    ]
    return [
        Step("Tensors", tensors),
        Step("Dataset versions", members, "In none."),
        Step("Models and predictions", [_prediction(row) for row in known["predictions"]]),
    ]


def _prediction(row: Mapping[str, Any]) -> list[Field]:
    return [
        ("model", f"{row['model_name']} {row['model_version']} ({row['stage'] or 'not registered any more'})", ""),
        ("trained on", f"{row['dataset_id'] or '?'} {_short(row['dataset_version'])}", ""),
        ("MLflow run", row["mlflow_run_id"], ""),
        ("Dagster run", row["dagster_run_id"], ""),
        ("weights", _short(row["weights_sha256"]), ""),
        ("says", f"{row['flag']} {number(row['probability'])}", ""),
        ("prediction", _short(row["prediction_key"]), ""),
        ("predicted", moment(row["created_at"]), ""),
    ]


def _sources(one: Instance, made: Rows, study: Mapping[str, Instance]) -> Step:
    rows = [row for row in made if row["instance_key"] == one.instance_key]
    return Step(
        "Made by this software from",
        [_instance(row["source_instance_key"], study, ("as", row["kind"], "")) for row in rows],
    )


def _made(one: Instance, made: Rows, study: Mapping[str, Instance]) -> Step:
    rows = [row for row in made if row["source_instance_key"] == one.instance_key]
    return Step("Objects made of it", [_instance(row["instance_key"], study, ("as", row["kind"], "")) for row in rows])


def _instance(key: str, study: Mapping[str, Instance], *more: Field) -> list[Field]:
    found = study.get(key)
    if found is None:
        return [("instance", key, ""), *more]
    return [("instance", uid_name(found.sop_class_uid), path_of(found)), *more]


def _results(one: Instance, known: Mapping[str, Rows]) -> Step:
    rows = [row for row in known["results"] if row["source_instance_key"] == one.instance_key]
    return Step("Results as DICOM", [list(_result(row)) for row in rows])


def _result(row: Mapping[str, Any]) -> Iterator[Field]:
    place = instance_path(row["study_instance_uid"], row["series_instance_uid"], row["sop_instance_uid"])
    yield "object", {"SR": "structured report", "SC": "picture with heat map"}.get(row["kind"], row["kind"]), place
    yield "model", f"{row['model_name']} {row['model_version']}", ""
    yield "prediction", _short(row["prediction_key"]), ""
    yield "SHA-256", _short(row["sha256"]), ""


def _deliveries(known: Mapping[str, Rows]) -> Step:
    return Step("Deliveries", list(map(_delivery, known["deliveries"])))


def _delivery(row: Mapping[str, Any]) -> list[Field]:
    return [
        ("peer", row["peer"], ""),
        ("state", row["state"] + (", withdrawn here since" if row["is_withdrawn"] else ""), ""),
        ("answer", row["answer"], ""),
        ("attempts", row["attempts"], ""),
        ("last", moment(row["tried_at"]), ""),
        ("delivery", row["delivery_name"], ""),
    ]


def path_of(one: Instance) -> str:
    """Address of an instance's page."""
    return instance_path(one.study_instance_uid, one.series_instance_uid, one.sop_instance_uid)


def by_key(instances: Iterable[Instance]) -> dict[str, Instance]:
    """Instances by their key."""
    return {one.instance_key: one for one in instances}


def _short(digest: str | None) -> str:
    return (digest or "")[:DIGITS]
