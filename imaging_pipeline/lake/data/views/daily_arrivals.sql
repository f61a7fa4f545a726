-- What came in on each day (UTC), by source, and what became of it; also what has vanished since.
SELECT first_seen_at::DATE AS arrival_date, source_name,
    count(*) AS objects,
    count(*) FILTER (parse_status IN ('PARSED', 'PARSED_WITH_ISSUES')) AS parsed,
    count(*) FILTER (parse_status = 'FAILED') AS failed,
    count(*) FILTER (parse_status = 'SKIPPED') AS skipped,
    count(deleted_at) AS vanished,
    sum(length)::BIGINT AS bytes
FROM bronze.object_catalog
GROUP BY arrival_date, source_name
