"""What every latent of an SAE does over a collection of texts, kept on disk to look things up."""
