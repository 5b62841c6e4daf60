"""scripts/compile: the rooms that every request passes through, made into machine code by mypyc."""
