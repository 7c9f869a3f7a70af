"""Other projects' own tests, run against what is shaped like them."""
