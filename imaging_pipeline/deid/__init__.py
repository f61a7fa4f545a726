"""De-identification: from an identified DICOM object to one that may be released, or to a refusal.

Owns the policy (`profile`, `table`, `rules`), the pseudonyms and their keys (`pseudonyms`), the change itself
(`engine`, `cleaner`, `dates`, `codes`, `pixels`), the proof that nothing is left (`screen`) and the crosswalk
(`vault`). Default is deny: what no rule releases is removed, and an object that cannot be judged is refused. Contains
no storage of objects, no Dagster and no settings.
"""
