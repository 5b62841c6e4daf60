"""What is said to the other side in each protocol, and what its answers mean. Pure."""
