"""Camera sources: one device kind a module."""
