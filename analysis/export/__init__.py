"""A trained user's model for other programs: PEFT adapters, a router, and the mixture merged into one model."""
