"""What providers bill: documents kept as they came, and the lines that were read from them."""
