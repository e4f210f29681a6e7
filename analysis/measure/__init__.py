"""Measures runs and compares them: numbers only."""
