"""The networks that samples are drawn from: the EMA widths of a run, and what guides them."""
