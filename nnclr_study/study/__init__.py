"""What to run, and the record of what ran. Loads neither torch nor ray."""
