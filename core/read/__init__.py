"""Reading the books: totals by any field, events, and the explanation of any of them."""
