"""`python -m agent` is the command `vigia`."""

from agent.cli import main

main()
