"""Reads comigs results files and turns them into figures, tables and reports."""
