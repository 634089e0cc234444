"""Plan a sweep: what it does, what is done already, and what it costs."""
