"""Execution: compute the runs of a plan, keep their records on disk, and report progress."""
