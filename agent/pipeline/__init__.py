"""How the stages of the road of a frame are joined."""
