-- Codes met in any header (PS3.3 8.8), at any depth: their meanings, and how often they are used.
WITH item AS (
    SELECT instance_key, item_path,
        trim(max(value_string) FILTER (tag_hex = '00080102')) AS coding_scheme_designator,
        trim(coalesce(
            max(value_string) FILTER (tag_hex = '00080100'),
            max(value_string) FILTER (tag_hex = '00080119'),
            max(value_string) FILTER (tag_hex = '00080120'))) AS code_value,
        trim(max(value_string) FILTER (tag_hex = '00080103')) AS coding_scheme_version,
        trim(max(value_string) FILTER (tag_hex = '00080104')) AS code_meaning
    FROM {schema}.dicom_element
    WHERE item_path <> '' AND value_string <> ''
        AND tag_hex IN ('00080100', '00080102', '00080103', '00080104', '00080119', '00080120')
    GROUP BY ALL
), code_use AS (
    SELECT coding_scheme_designator, code_value, max(coding_scheme_version) AS coding_scheme_version,
        count(*) AS use_count, count(DISTINCT instance_key) AS instance_count
    FROM item WHERE coding_scheme_designator <> '' AND code_value <> ''
    GROUP BY ALL
), meaning AS (
    SELECT coding_scheme_designator, code_value, code_meaning, count(*) AS uses
    FROM item WHERE code_meaning <> ''
    GROUP BY ALL
), meanings AS (
    SELECT coding_scheme_designator, code_value,
        first(code_meaning ORDER BY uses DESC, code_meaning) AS code_meaning,
        list(code_meaning ORDER BY code_meaning) AS meanings
    FROM meaning
    GROUP BY ALL
)
SELECT coding_scheme_designator, code_value, coding_scheme_version, code_meaning, meanings, use_count, instance_count
FROM code_use LEFT JOIN meanings USING (coding_scheme_designator, code_value)
