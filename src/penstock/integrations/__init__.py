"""Where Penstock meets other libraries: one file each, and none is imported before it is asked for."""
