"""What is measured at growing sizes: steps that need no model, and commands on a tiny one."""
