"""Reads comigs results files and turns them into figures, tables and reports.

Rooms, whose imports point one way: read <- measure <- draw <- page <- {paper, insight} <- cli.
"""
