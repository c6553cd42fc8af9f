"""Text to batches: corpus, tokenizer, vocabulary, token stream, batching."""
