"""Fuzz targets for everything that reads files of others, their seeds, and what runs them."""
