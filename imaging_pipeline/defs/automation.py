"""When assets run by themselves. Each condition is named once and says why each of its terms is there."""

from __future__ import annotations

import dagster as dg

from imaging_pipeline.defs.reporting import asset_key

AC = dg.AutomationCondition

_handled = AC.newly_requested() | AC.newly_updated()

nightly_if_new = (
    AC.cron_tick_passed("0 3 * * *") & AC.any_deps_updated().since(_handled) & ~AC.in_progress()
).with_label("nightly_if_new")
"""At 03:00 UTC, if a batch came since the last time. ``on_cron`` would wait until every batch was written again."""

after_each_batch = (AC.any_deps_updated().since(_handled) & ~AC.any_deps_in_progress() & ~AC.in_progress()).with_label(
    "after_each_batch"
)
"""Once a batch is written, held or not."""

_OF_EACH_BATCH = dg.AssetSelection.assets(asset_key("gold", "image_tensor"), asset_key("deid", "study_state"))

when_labels_changed = (
    AC.any_deps_updated().ignore(_OF_EACH_BATCH).since(_handled) & ~AC.any_deps_in_progress() & ~AC.in_progress()
).with_label("when_labels_changed")
"""After the nightly labels, not after each batch or study; a batch that is held does not hold the dataset."""

when_dataset_changed = (
    AC.any_deps_updated().since(_handled)
    & ~AC.any_deps_in_progress()
    & ~AC.in_progress()
    & AC.all_deps_blocking_checks_passed()
).with_label("when_dataset_changed")
"""When a dataset was frozen whose checks passed; an unchanged dataset trains nothing."""

when_batch_is_ready = (
    AC.any_deps_updated().ignore(dg.AssetSelection.assets(asset_key("gold", "pneumonia_model"))).since(_handled)
    & ~AC.any_deps_missing()
    & ~AC.any_deps_in_progress()
    & ~AC.in_progress()
    & AC.all_deps_blocking_checks_passed()
).with_label("when_batch_is_ready")
"""Each batch once its tensors passed their checks; waits for a first model, is not repeated for a newer one."""
