"""How few subnets a search has to judge: a table of ground truth, and samplers compared on it."""
