"""Sources of price books: the operator's contract file, genai-prices, LiteLLM's map."""
