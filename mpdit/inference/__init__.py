"""Making a trained network fast: folded weights, compiled blocks."""
