"""The whole chain, on real files and real processes."""
