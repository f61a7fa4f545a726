"""Silver: rows of the registry's tables, projected from stored headers."""
