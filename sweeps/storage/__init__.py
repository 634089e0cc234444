"""Where sweeps, trials and ledgers are kept: a folder or a bucket."""
