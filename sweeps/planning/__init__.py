"""What a sweep will do, what is known already, and what it costs."""
