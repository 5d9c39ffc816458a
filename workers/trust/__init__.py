"""Whether the number of an evaluation may be believed: a few rows are looked at again, and rules turn what is seen into checks."""
