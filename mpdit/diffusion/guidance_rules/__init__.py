"""Guidance rules, one kind a file: how a conditional and an unconditional prediction become one."""
