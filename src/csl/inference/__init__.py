"""The work of validate.py and infer.py: networks measured on annotated images, and photos named."""
