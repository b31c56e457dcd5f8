"""Programs that run on a board during an ssh connection: the agent, and the report about the machine."""
