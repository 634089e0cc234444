"""The schedulers, one a module: which trial stops at a rung."""
