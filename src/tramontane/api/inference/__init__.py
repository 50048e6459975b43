"""Files and batches under ``/v1``, as OpenAI's and Mistral's clients know them."""
