"""The bundle format: what a model update is made of, and why it can be trusted."""
