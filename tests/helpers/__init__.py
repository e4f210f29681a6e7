"""What tests share: tiny models and data, the built programs, stand-ins, readers of what is written."""
