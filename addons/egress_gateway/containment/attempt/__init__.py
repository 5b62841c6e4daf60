"""One try at sending something, and the facts of what came back. Nothing is judged here."""
