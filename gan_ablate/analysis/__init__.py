"""What a grid's records say: a table of runs, effects with their uncertainty, verdicts on claims."""
