"""Digests of what small runs of every method give: a change that is to leave all numbers as they are shows that it does."""
