"""Draws: figures by matplotlib, and numbers as a reader wants them."""
