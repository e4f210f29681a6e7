"""What every Python program here stands on: streams, small files, whole files, bad input, and comigs itself."""
