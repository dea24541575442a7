"""The HTML page that tells what a search found, and the pictures in it."""
