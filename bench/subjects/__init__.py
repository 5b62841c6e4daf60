"""What is measured. Each file makes one program's configuration and starts it.

All of them get the same list of allowed names, one worker, and an access log or none.
"""
