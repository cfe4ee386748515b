"""Which latents encode feedback: encode it, select latents, show the evidence."""
