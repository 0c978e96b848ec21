"""The serving engines: Ollama, and llama.cpp from its Python wheel, behind one interface.

Shared by the driver (deploy, verify, the GPU window) and the labeler's stages (label, evaluate);
docs/adr/0001-serving-is-a-room-of-its-own.md says why it is not below driver/.
"""
