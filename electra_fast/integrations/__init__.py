"""Integration of our code into other libraries. No library is imported or changed before a function here is called."""
