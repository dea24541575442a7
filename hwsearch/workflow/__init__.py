"""The stages as functions: what each command of the command line calls."""
