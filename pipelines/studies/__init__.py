"""Commands that draw one figure each."""
