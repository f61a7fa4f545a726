"""The registry in words: what each column mirrors, how tables join, the search, the pages, the table in the lake."""
