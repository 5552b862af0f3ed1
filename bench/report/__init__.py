"""What people look at: a run as one page, with its charts, tables and words."""
