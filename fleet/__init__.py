"""The fleet controller, at the operator's side."""
