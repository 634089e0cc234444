"""Training objectives and samplers."""
