"""Every claim of README.md beside the command that shows it: runs them and writes docs/proof.md."""
