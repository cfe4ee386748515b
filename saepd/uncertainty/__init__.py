"""How sure the model is, and who should look."""
