"""The machine that the program runs on: files, processes, signals, faults, downloads, memory."""
