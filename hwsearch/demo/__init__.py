"""The small supernet behind `hwsearch demo`, and how its base model was trained."""
