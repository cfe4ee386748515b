"""One forward pass for all branches: what is shared runs once, and the rest side by side.

`plan` sorts directions out by site, `columns` lays tokens out, `prefix` runs what branches share
and what they do not, `widening` splits one run into branches, `pack` does so for many prompts,
`decoding` and `writing` token by token.
"""
