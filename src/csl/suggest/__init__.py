"""What `csl suggest` does: which unknown labels to fill in first, and which known ones are probably wrong."""
