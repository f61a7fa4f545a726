"""Bronze: the ledger of what was seen, the batches cut from it, and the catalog of objects."""
