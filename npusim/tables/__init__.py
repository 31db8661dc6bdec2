"""Tables that commands print, and what stands beside them: a file a subject."""
