"""Searches, which choose the next point, and schedulers, which stop trials early."""
