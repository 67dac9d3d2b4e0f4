"""Scoring: compare generated images with real ones."""
