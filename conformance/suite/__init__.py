"""The machinery of the suite: scripts, their play through a driver, and the judgement."""
