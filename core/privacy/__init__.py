"""What the books know of people, and of what they asked: pseudonyms, erasure, prompt hashes."""
