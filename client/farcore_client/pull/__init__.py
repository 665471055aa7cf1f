"""farcore pull: a whole resource becomes a local file, by parts that are proved one by one."""
