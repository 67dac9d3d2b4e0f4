"""Figures: one message each, a variant's colour and marker the same in all of them."""
