"""How the commands show things: tables, the progress of a sweep, grids of pictures."""
