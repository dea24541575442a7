"""The elastic Segment Anything model: slicing, importance, training."""
