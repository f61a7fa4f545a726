"""The assets, one module per zone."""
