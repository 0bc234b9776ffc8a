"""The life cycle of an update on the device: received, proven, activated, undone."""
