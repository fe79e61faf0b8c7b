"""What the Snakefile and rules/ call. Light imports only: every job parses them again."""
