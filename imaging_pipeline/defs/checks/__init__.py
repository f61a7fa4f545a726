"""The checks between zones, one module per zone."""
