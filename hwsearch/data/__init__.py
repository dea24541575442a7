"""Images with object masks: readers, framings, prompts, and scenes composed from photographs."""
