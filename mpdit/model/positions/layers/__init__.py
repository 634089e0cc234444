"""The tables and layers of the kinds of positions: what imports torch."""
