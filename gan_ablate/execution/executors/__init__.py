"""Ways to compute the runs of a plan."""
