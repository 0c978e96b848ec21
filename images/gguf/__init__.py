"""The gguf image: stage CONVERT, the merged model in the format of the serving engine."""
