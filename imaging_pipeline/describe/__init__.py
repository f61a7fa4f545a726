"""What `imaging-pipeline describe` answers: a table, a column, an attribute, or what was found by words."""
