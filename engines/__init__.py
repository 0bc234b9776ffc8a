"""The model runtime: arrays in, arrays out. Imports nothing from `agent`."""
