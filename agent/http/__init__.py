"""What the agent shows over HTTP: status page, health, metrics, live pictures."""
