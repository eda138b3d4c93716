"""Parts of activation clustering."""
