"""Pages, tables and figures that show effects and verdicts."""
