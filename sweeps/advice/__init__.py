"""What a sweep has answered, axis by axis, and what to do next: all from its ledger, no model is loaded."""
