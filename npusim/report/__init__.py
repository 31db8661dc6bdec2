"""The report that an engineer would write of a capture: what it says, its figures, its page."""
