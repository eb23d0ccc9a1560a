"""The flags of the scripts: parse, call, print."""
