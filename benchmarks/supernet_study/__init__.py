"""What a supernet is worth: trainings to compare it with, and the comparisons."""
