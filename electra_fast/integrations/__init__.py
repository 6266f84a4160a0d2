"""Other libraries on our code. Nothing is imported and nothing of theirs changes before a function here is called."""
