"""The score of the MIDI-B challenge's ten categories over the corpus under the research profile."""

from __future__ import annotations

from imaging_pipeline_tests.deid.planted.collection import everything, film_objects, pixel_objects
from imaging_pipeline_tests.deid.planted.outcome import outcome
from imaging_pipeline_tests.deid.planted.score import BEST_PUBLISHED, CATEGORIES, Score, score

UNREADABLE = frozenset({
    "encoded-binary", "raw-data", "document-pdf", "document-cda", "jpeg-comment", "rle-tail",
})  # fmt: skip
"""What may be held: no action can be required of an object that waits for a person."""


PIXELS = frozenset({
    "film-clean", "film-marker", "film-marker-and-name", "film-16-bit", "ultrasound-1", "last-frame",
    "compressed-80-name", "compressed-90-clean", "rle-tail", "jpeg-comment",
})  # fmt: skip
"""Of the objects with pixels to read, which takes a second each, those that are scored."""


def _scored() -> Score:
    unread = {planted.name for planted in (*film_objects(), *pixel_objects())} - PIXELS
    corpus = [planted for planted in everything() if planted.name not in unread]
    judged, held = [], []
    for planted in corpus:
        made = outcome(planted, "research")
        if made.verdict is None:
            held.append(planted.name)
        else:
            judged.append((planted, made.verdict))
    assert set(held) <= UNREADABLE
    assert len(judged) > 0.8 * len(corpus)
    return score(judged)


def test_the_corpus_scores_better_in_midi_b_than_the_best_published_team() -> None:
    made = _scored()
    shares = {category: f"{made.done[category]} of {made.required[category]}" for category in CATEGORIES}
    assert all(made.required.values()), shares
    assert made.total > BEST_PUBLISHED, [shares, made.failures[:20]]
    for category in ("text_removed", "uid_changed", "uid_consistent", "patid_consistent", "pixels_hidden"):
        assert made.share(category) == 1, made.failures[:20]
