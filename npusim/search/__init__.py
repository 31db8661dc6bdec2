"""Search: fronts of spaces that are too large to enumerate, and which axes matter."""
