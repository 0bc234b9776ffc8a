"""The commands of `vigia fleet`, one module for each group."""
