"""What a client that was refused is told. Pure: facts in, bytes out; what is told decides nothing."""
