"""The network: transformer, attention, MLP, modulation, and the rules that carry rates across widths."""
