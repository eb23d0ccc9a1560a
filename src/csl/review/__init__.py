"""`csl review`: a page to answer whether images have classes, quickly, and the answers as a file."""
