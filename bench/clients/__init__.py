"""What makes the load. Each is a program of its own, which prints one JSON object at its end."""
