"""The trainer image: stage TRAIN, a LoRA adapter from labelled rows."""
