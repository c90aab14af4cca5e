"""One loss a file: a function, then a thin Module."""
