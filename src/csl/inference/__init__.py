"""What validate.py and infer.py do."""
