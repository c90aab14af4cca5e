"""What is wrong with a dataset, and what of it can be repaired: one check a function, its name is the finding's."""
