"""The lakes: two DuckLake catalogs, the registry of their tables, and the few ways of writing to them."""
