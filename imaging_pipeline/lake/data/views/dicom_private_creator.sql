-- Private attributes met in any header, by their creator, whatever block an object reserved for it (PS3.5 7.8.1).
WITH attribute AS (
    SELECT instance_key, tag_group, private_creator, tag_element % 256 AS element_offset, vr
    FROM {schema}.dicom_element
    WHERE is_private AND private_creator <> '' AND tag_element >= 4096
), maker AS (
    SELECT instance_key, max(trim(value_string)) AS manufacturer
    FROM {schema}.dicom_element
    WHERE element_path = '00080070' AND value_string <> ''
    GROUP BY ALL
), representation AS (
    SELECT tag_group, private_creator, element_offset, vr, count(*) AS uses
    FROM attribute GROUP BY ALL
), representations AS (
    SELECT tag_group, private_creator, element_offset, first(vr ORDER BY uses DESC, vr) AS vr
    FROM representation GROUP BY ALL
), attribute_use AS (
    SELECT tag_group, private_creator, element_offset,
        list(DISTINCT manufacturer ORDER BY manufacturer) FILTER (manufacturer IS NOT NULL) AS manufacturers,
        count(*) AS occurrences, count(DISTINCT instance_key) AS instance_count
    FROM attribute LEFT JOIN maker USING (instance_key)
    GROUP BY ALL
)
SELECT tag_group, private_creator, element_offset, vr, manufacturers, occurrences, instance_count
FROM attribute_use JOIN representations USING (tag_group, private_creator, element_offset)
