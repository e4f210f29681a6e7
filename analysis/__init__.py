"""Reads comigs results files and turns them into figures, tables, reports, and models that open elsewhere.

Rooms, whose imports point one way: read <- measure <- {draw <- page <- {paper, insight}, export} <- cli.
"""
