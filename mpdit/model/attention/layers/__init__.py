"""The layers that kinds of attention build, one a file, named as the kind."""
