"""The sweep file: its model, reading it, and what may be swept."""
