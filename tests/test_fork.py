"""Being written by another helper: leave this file alone."""
