"""Reads what runs and sweeps have left: labelled arrays, token-level routing, the index of a sweep."""
