"""Other projects' own tests, run with what is ours in place of what is theirs."""
