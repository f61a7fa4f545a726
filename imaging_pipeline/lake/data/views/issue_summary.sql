-- What is wrong with the objects that are there, by source and modality, and how large a share of them has it.
WITH object AS (
    SELECT object_key, catalog.source_name, modality
    FROM bronze.object_catalog AS catalog
    LEFT JOIN {schema}.dicom_file_location USING (object_key)
    LEFT JOIN {schema}.dicom_series USING (series_key)
    WHERE deleted_at IS NULL
), total AS (
    SELECT source_name, modality, count(*) AS objects FROM object GROUP BY ALL
), found AS (
    SELECT source_name, modality, stage, issue_code, severity, count(*) AS issues,
        count(DISTINCT object_key) AS objects_with_issue
    FROM bronze.ingest_issue JOIN object USING (object_key)
    GROUP BY ALL
)
SELECT found.source_name, found.modality, stage, issue_code, severity, issues, objects_with_issue,
    objects_with_issue / objects AS share
FROM found JOIN total
    ON total.source_name = found.source_name AND total.modality IS NOT DISTINCT FROM found.modality
