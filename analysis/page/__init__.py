"""Pages of HTML, and the report about runs."""
