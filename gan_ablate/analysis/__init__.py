"""Records come in, a table, effects and verdicts go out."""
