"""What the Snakefile and rules/ call, beside the checked configuration and the paths. Light imports: every job parses it."""
