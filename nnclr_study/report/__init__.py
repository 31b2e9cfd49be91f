"""From the rows of a run folder to one page. Loads neither torch nor ray."""
