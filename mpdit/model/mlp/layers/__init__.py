"""The layers that kinds of MLP build, one a file, named as the kind."""
